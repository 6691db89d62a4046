"""An endless, seeded, resumable stream of tasks: every epoch visits each task once, in an order of its own.

The task at a position is a pure function of (tasks, seed, position). A checkpoint therefore stores one number, plus
the positions that were handed out but are not trained on yet; after a resume those come first, so that nothing is
lost and nothing comes twice. The stream never blocks.
"""

import hashlib
import random
from collections.abc import Iterable, Sequence
from typing import TypedDict

from conf.errors import QuorumError
from rewards.carriers import SqlTask
from rollout.tasks.carriers import DataError


class StreamState(TypedDict):
    """JSON-compatible; `pending` positions are handed out again before `position` is."""

    fingerprint: str
    seed: int
    position: int
    pending: list[int]


class StreamMismatch(QuorumError):
    """A saved position belongs to other tasks or another seed."""


class TaskStream:
    """Hands out (position, task); positions count from 0 over all epochs."""

    def __init__(self, tasks: Sequence[SqlTask], seed: int) -> None:
        """Raises DataError for an empty sequence."""
        if not tasks:
            raise DataError("no task remains to stream: see the dropped tasks and their reasons")
        self._tasks = tuple(tasks)
        self._seed = seed
        self._position = 0
        self._pending: list[int] = []
        self._order_epoch = -1
        self._order: list[int] = []
        self._fingerprint = hashlib.sha256("\n".join(task.id for task in self._tasks).encode()).hexdigest()[:16]

    def __len__(self) -> int:
        """Tasks of one epoch."""
        return len(self._tasks)

    def epoch(self, position: int) -> int:
        return position // len(self._tasks)

    def task_at(self, position: int) -> SqlTask:
        """The task of any position, past or future."""
        epoch, offset = divmod(position, len(self._tasks))
        if epoch != self._order_epoch:
            self._order = list(range(len(self._tasks)))
            random.Random(f"{self._seed}/{epoch}").shuffle(self._order)
            self._order_epoch = epoch
        return self._tasks[self._order[offset]]

    def next(self) -> tuple[int, SqlTask]:
        """The next position and its task; positions pending at the resume come first."""
        if self._pending:
            position = self._pending.pop(0)
        else:
            position = self._position
            self._position += 1
        return position, self.task_at(position)

    def state_dict(self, pending: Iterable[int] = ()) -> StreamState:
        """`pending`: positions handed out whose groups have not been trained on or dropped yet."""
        return StreamState(
            fingerprint=self._fingerprint,
            seed=self._seed,
            position=self._position,
            pending=sorted({*self._pending, *pending}),
        )

    def load_state_dict(self, state: StreamState) -> None:
        """Raises StreamMismatch for the state of other tasks or another seed."""
        if state["fingerprint"] != self._fingerprint:
            raise StreamMismatch(
                f"the checkpoint was made with other tasks than the {len(self._tasks)} loaded now: use the same data "
                "and limits, or start a new run"
            )
        if state["seed"] != self._seed:
            raise StreamMismatch(f"the checkpoint was made with seed {state['seed']}, this run has seed={self._seed}")
        self._position = state["position"]
        self._pending = sorted(state["pending"])
