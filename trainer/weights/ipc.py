"""Weights by CUDA IPC: rollout and learner share one GPU, nothing leaves it.

Written against vLLM 0.26 to 0.32, whose unpacked ipc updates have one form, and run with 0.26. A restarted
worker can load the newest weights again. Only the device of learner rank 0 is served.
"""

import time
from collections.abc import Sequence

import torch
from torch.multiprocessing.reductions import reduce_tensor

from rollout.weights.handle import EngineLife, IpcHandle
from trainer.weights.device_copies import DeviceCopies
from trainer.weights.wire import NamedTensors


class IpcSender:
    """Offers copies on the device by handle."""

    def __init__(self, dtype: torch.dtype) -> None:
        """`dtype`: element type on the wire; the engines' own."""
        self._copies = DeviceCopies(dtype)
        self.seconds = 0.0
        """What the last publication took."""

    def publish(self, weights: NamedTensors, version: int, *, engines: Sequence[EngineLife] = ()) -> IpcHandle:
        """Copy all weights on the device and return their handles; must not run while an engine still reads."""
        began = time.perf_counter()
        self._copies.fill(weights)
        device = str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid)
        handles = tuple({device: reduce_tensor(copy)[1]} for copy in self._copies.tensors.values())
        self.seconds = time.perf_counter() - began
        return IpcHandle(version=version, tensors=self._copies.layout(), handles=handles)

    def close(self) -> None:
        """Give the copies' memory back."""
        self._copies.tensors.clear()
        torch.cuda.ipc_collect()
