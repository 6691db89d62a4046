"""Weights through an anonymous memory file: the transport of CPU runs on one machine.

The file has no name: nothing lies in /dev/shm, its size does not count against a container's shm limit, and the
kernel frees it when the last process that maps it ends, even by SIGKILL. Engines open it through /proc, so learner
and workers must run as one user on one machine (and in one process namespace).
"""

import os
import time
from collections.abc import Sequence

import torch

from rollout.weights.handle import EngineLife, SharedMemoryHandle, TensorSpec
from rollout.weights.segment import ALIGNMENT, HEADER_BYTES, WRITING, header, machine_id
from trainer.weights.wire import NamedTensors


class SharedMemorySender:
    """Keeps one segment and rewrites it at each publication.

    Who waits for whom: `publish` must not run while an engine still reads the previous version; the driver awaits the
    pool's update before it publishes again. A reader that is late all the same finds another version and refuses.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        """`dtype`: element type on the wire; the engines' own, so that they need not convert."""
        self._dtype = dtype
        self._fd: int | None = None
        self.seconds = 0.0
        """What the last publication took."""

    def publish(self, weights: NamedTensors, version: int, *, engines: Sequence[EngineLife] = ()) -> SharedMemoryHandle:
        """Write all weights, one tensor at a time, and return where they lie; any engine may read them, at any time.

        Raises:
            OSError: no memory is left for the segment.
        """
        began = time.perf_counter()
        if self._fd is None:
            self._fd = os.memfd_create("quorum-weights", os.MFD_CLOEXEC)
        _write(self._fd, memoryview(header(WRITING)), 0)
        specs = []
        end = HEADER_BYTES
        for name, tensor in weights:
            offset = -(-end // ALIGNMENT) * ALIGNMENT
            wire = tensor.to("cpu", self._dtype).contiguous()
            data = memoryview(wire.flatten().view(torch.uint8).numpy())
            _write(self._fd, data, offset)
            dtype = str(self._dtype).removeprefix("torch.")
            specs.append(TensorSpec(name=name, dtype=dtype, shape=tuple(tensor.shape), offset=offset))
            end = offset + len(data)
        os.ftruncate(self._fd, end)
        _write(self._fd, memoryview(header(version)), 0)
        self.seconds = time.perf_counter() - began
        return SharedMemoryHandle(
            version=version,
            machine=machine_id(),
            pid=os.getpid(),
            fd=self._fd,
            inode=os.fstat(self._fd).st_ino,
            size=end,
            tensors=tuple(specs),
        )

    def close(self) -> None:
        """Release the segment; later reads fail with a typed error."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _write(fd: int, data: memoryview, offset: int) -> None:
    """Write all bytes at `offset`: one call takes at most 2 GiB."""
    while data:
        count = os.pwrite(fd, data, offset)
        data, offset = data[count:], offset + count
