"""Weights by packed NCCL broadcast: rollout workers on other GPUs than the learner.

Has not been run on GPUs; written against vLLM 0.26 to 0.32 (nccl_common.trainer_init, packed_nccl_broadcast_producer).
A broadcast needs both sides at once, so `publish` begins it in a thread and returns; it ends while the pool updates its
workers. Who waits for whom: the thread waits for every worker to join and receive; the next publication waits for the
thread. A worker that dies in mid-broadcast leaves the others stuck until the pool's update limit replaces them; the
next publication then fails, and the run goes on from its last checkpoint. Each communicator meets at a free port of
this process's own machine, which the handle carries.
"""

import threading
import time
from collections.abc import Sequence

import torch

from rollout.errors import WeightUpdateFailed
from rollout.weights.handle import EngineLife, NcclHandle
from trainer.weights.device_copies import DeviceCopies
from trainer.weights.meeting import NcclMeeting, meeting_place
from trainer.weights.wire import NamedTensors

BUFFER_BYTES = 2**30
BUFFERS = 2


class NcclSender:
    """Rank 0 of the group that carries weights to the engines."""

    def __init__(self, dtype: torch.dtype, meeting: NcclMeeting) -> None:
        """`dtype`: element type on the wire; the engines' own."""
        self._copies = DeviceCopies(dtype)
        self._meeting = meeting
        self._session = 0
        self._place: tuple[str, int] | None = None
        self._engines: tuple[EngineLife, ...] = ()
        self._group: object | None = None
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self.seconds = 0.0
        """What the last finished broadcast took, the wait for the engines included."""

    def publish(self, weights: NamedTensors, version: int, *, engines: Sequence[EngineLife] = ()) -> NcclHandle:
        """Copy the weights, begin their broadcast, and return what the engines need to join it.

        Args:
            engines: RolloutPool.engines, who take part; others than before form a new communicator.

        Raises:
            WeightUpdateFailed: the previous broadcast failed or has not ended; the next one forms a new communicator.
        """
        self._wait()
        if self._engines != tuple(engines):
            self._engines = tuple(engines)
            self._renew()
        self._copies.fill(weights)
        if self._place is None:
            self._place = meeting_place(loopback=self._meeting.loopback)
        address, port = self._place
        handle = NcclHandle(
            version=version,
            tensors=self._copies.layout(),
            session=self._session,
            address=address,
            port=port,
            world_size=1 + len(self._engines) * self._meeting.ranks_per_engine,
            engines=self._engines,
            buffer_bytes=BUFFER_BYTES,
            buffers=BUFFERS,
        )
        device = torch.cuda.current_device()
        self._thread = threading.Thread(target=self._run, args=(handle, device), name="weights", daemon=True)
        self._thread.start()
        return handle

    def close(self) -> None:
        """Give the copies' memory back; a broadcast in progress is abandoned with the process."""
        self._group = None
        self._copies.tensors.clear()

    def _renew(self) -> None:
        self._session += 1
        self._group, self._place = None, None

    def _wait(self) -> None:
        """Wait for the broadcast in progress."""
        if self._thread is None:
            return
        self._thread.join(self._meeting.timeout_s)
        stuck, self._thread = self._thread.is_alive(), None
        error, self._error = self._error, None
        if stuck or error is not None:
            self._renew()
            reason = f"did not end within {self._meeting.timeout_s:g} s" if stuck else f"failed: {error}"
            raise WeightUpdateFailed(f"the previous weight broadcast {reason}") from error

    def _run(self, handle: NcclHandle, device: int) -> None:
        from vllm.distributed.weight_transfer.nccl_common import trainer_init
        from vllm.distributed.weight_transfer.packed_tensor import packed_nccl_broadcast_producer

        began = time.perf_counter()
        try:
            torch.cuda.set_device(device)
            if self._group is None:
                self._group = trainer_init(
                    {"master_address": handle.address, "master_port": handle.port, "world_size": handle.world_size}
                )
            packed_nccl_broadcast_producer(
                iterator=iter(self._copies.tensors.items()),
                group=self._group,
                src=0,
                post_iter_func=lambda item: item[1],
                buffer_size_bytes=handle.buffer_bytes,
                num_buffers=handle.buffers,
            )
            torch.cuda.synchronize()
        except Exception as error:  # the end of a thread: the next publication raises it
            self._error = error
        self.seconds = time.perf_counter() - began
