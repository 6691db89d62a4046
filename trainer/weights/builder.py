"""Which sender a learner uses, by the backend that rollout.weight_transfer stands for.

The driver builds the factory and the learner calls it: torch is imported there, not here.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal, Protocol

from conf.errors import ConfigError
from rollout.weights.handle import EngineLife, WeightHandle
from trainer.weights.meeting import NcclMeeting

if TYPE_CHECKING:
    from trainer.weights.wire import NamedTensors


class WeightSender(Protocol):
    """The sending side of one backend, on learner rank 0."""

    seconds: float
    """What the last publication took."""

    def publish(self, weights: "NamedTensors", version: int, *, engines: Sequence[EngineLife] = ()) -> WeightHandle:
        """Offer weights to the engines; must not run before the pool's previous update has returned.

        `engines`: RolloutPool.engines; a sender that keeps a connection to them makes a new one when they are others.
        """
        ...

    def close(self) -> None:
        """Release what was published."""
        ...


def sender_factory(
    backend: str, engine_dtype: Literal["bfloat16", "float32"], meeting: NcclMeeting | None = None
) -> Callable[[], WeightSender]:
    """What a learner rank calls to make its sender; picklable.

    Args:
        backend: "shared_memory", "ipc" or "nccl" (rollout.worker.transfer_backend).
        engine_dtype: rollout.engine.dtype.
        meeting: nccl only.

    Raises:
        ConfigError: an unknown backend, or nccl without a meeting.
    """
    if backend not in _BUILDERS:
        raise ConfigError(f"rollout.weight_transfer={backend} is not one of {', '.join(_BUILDERS)}")
    if backend == "nccl" and meeting is None:
        raise ConfigError("rollout.weight_transfer=nccl needs to know how the learner meets its engines")
    return partial(_build, backend, engine_dtype, meeting)


def _build(backend: str, engine_dtype: str, meeting: NcclMeeting | None) -> WeightSender:
    return _BUILDERS[backend](engine_dtype, meeting)


def _shared_memory(engine_dtype: str, meeting: NcclMeeting | None) -> WeightSender:
    from trainer.weights.shared_memory import SharedMemorySender
    from trainer.weights.wire import wire_dtype

    return SharedMemorySender(wire_dtype(engine_dtype))


def _ipc(engine_dtype: str, meeting: NcclMeeting | None) -> WeightSender:
    from trainer.weights.ipc import IpcSender
    from trainer.weights.wire import wire_dtype

    return IpcSender(wire_dtype(engine_dtype))


def _nccl(engine_dtype: str, meeting: NcclMeeting | None) -> WeightSender:
    from trainer.weights.nccl import NcclSender
    from trainer.weights.wire import wire_dtype

    assert meeting is not None
    return NcclSender(wire_dtype(engine_dtype), meeting)


_BUILDERS: dict[str, Callable[[str, NcclMeeting | None], WeightSender]] = {
    "shared_memory": _shared_memory,
    "ipc": _ipc,
    "nccl": _nccl,
}
