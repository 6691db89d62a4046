"""Endless, seeded, resumable streams of tasks; here the uniform one: every epoch visits each task once, in an order of
its own.

The task at a position is a pure function of (tasks, seed, position), so a checkpoint needs no more than the number of
consumed positions. Streams that learn from what came back have more to remember: `state_dict`. Never blocks.
"""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from pydantic import TypeAdapter, ValidationError

from conf.errors import QuorumError, first_line
from rewards.carriers import SqlTask
from rollout.tasks.carriers import DataError


class StreamMismatch(QuorumError):
    """A saved stream belongs to other tasks, another seed or another sampler."""


class StreamDamaged(QuorumError):
    """A saved stream does not hold what a stream saves; the message is the reason alone."""


@dataclass(frozen=True, slots=True)
class StreamIdentity:
    """What a saved stream must agree in."""

    fingerprint: str
    tasks: int
    seed: int
    sampler: str


T = TypeVar("T")


class Stream(Protocol):
    """Which task stands at which position; positions count from 0 over the whole run."""

    def __len__(self) -> int:
        """Tasks to choose among."""

    def task_at(self, position: int) -> SqlTask:
        """The task of a position; the same at every call until the position is recorded."""

    def record(self, position: int, correct: Sequence[bool]) -> None:
        """The position has been trained on or dropped; `correct`: of each completion that could be scored."""

    def state_dict(self) -> dict[str, Any]:
        """JSON-compatible."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises StreamMismatch for the state of other tasks, another seed or another sampler, and StreamDamaged."""


class TaskStream:
    """Uniform."""

    def __init__(self, tasks: Sequence[SqlTask], seed: int) -> None:
        """Raises DataError for an empty sequence."""
        self._identity = stream_identity(tasks, seed, "uniform")
        self._tasks = tuple(tasks)
        self._seed = seed
        self._order_epoch = -1
        self._order: list[int] = []

    def __len__(self) -> int:
        return len(self._tasks)

    def task_at(self, position: int) -> SqlTask:
        """The task of any position, past or future."""
        epoch, offset = divmod(position, len(self._tasks))
        if epoch != self._order_epoch:
            self._order = list(range(len(self._tasks)))
            random.Random(f"{self._seed}/{epoch}").shuffle(self._order)
            self._order_epoch = epoch
        return self._tasks[self._order[offset]]

    def record(self, position: int, correct: Sequence[bool]) -> None:
        """Nothing depends on it."""

    def state_dict(self) -> dict[str, Any]:
        return dict(self._identity)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        check_identity(state, self._identity)


def stream_identity(tasks: Sequence[SqlTask], seed: int, sampler: str) -> dict[str, Any]:
    """What a saved stream must agree in. Raises DataError for an empty sequence."""
    if not tasks:
        raise DataError("no task remains to stream: see the dropped tasks and their reasons")
    names = "\n".join(task.id for task in tasks)
    return {
        "fingerprint": hashlib.sha256(names.encode()).hexdigest()[:16],
        "tasks": len(tasks),
        "seed": seed,
        "sampler": sampler,
    }


def state_as(kind: type[T], state: dict[str, Any]) -> T:
    """A saved stream's fields, or those of them that `kind` has. Raises StreamDamaged."""
    try:
        return TypeAdapter(kind).validate_python(state)
    except ValidationError as error:
        raise StreamDamaged(first_line(error, otherwise="it holds something else")) from error


def check_identity(state: dict[str, Any], identity: dict[str, Any]) -> None:
    """Raises StreamMismatch with what differs, and StreamDamaged."""
    saved = state_as(StreamIdentity, state)
    if saved.fingerprint != identity["fingerprint"]:
        raise StreamMismatch(
            f"the checkpoint was made with other tasks than the {identity['tasks']} loaded now: use the same data and "
            "limits, or start a new run"
        )
    for name, setting, was in (("seed", "seed", saved.seed), ("sampler", "algo.sampler.type", saved.sampler)):
        if was != identity[name]:
            raise StreamMismatch(
                f"the checkpoint was made with {setting}={was}, this run has {setting}={identity[name]}"
            )
