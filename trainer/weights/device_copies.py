"""One copy of every weight on the GPU, in the wire's element type, filled at each publication.

It costs the model's size in the memory of learner rank 0's GPU, under ZeRO-3 too (`trainer/plan` counts it); in return
the optimizer may go on while engines read or receive.
"""

import torch

from rollout.weights.handle import TensorSpec
from trainer.weights.wire import NamedTensors


class DeviceCopies:
    """Copies by name, in the order in which they arrived."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self.tensors: dict[str, torch.Tensor] = {}

    def fill(self, weights: NamedTensors) -> None:
        """Take over all weights; returns when the copies are complete."""
        for name, tensor in weights:
            if name not in self.tensors:
                self.tensors[name] = torch.empty(tensor.shape, dtype=self._dtype, device="cuda")
            self.tensors[name].copy_(tensor)
        torch.cuda.synchronize()

    def layout(self) -> tuple[TensorSpec, ...]:
        """What the engines need to know of the copies."""
        dtype = str(self._dtype).removeprefix("torch.")
        return tuple(TensorSpec(name=name, dtype=dtype, shape=tuple(t.shape)) for name, t in self.tensors.items())
