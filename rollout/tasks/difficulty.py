"""A stream that prefers tasks which can still teach: those that are solved sometimes.

A group of n completions teaches unless all are right or all are wrong. With a task's pass rate p that has probability
1 - p^n - (1 - p)^n, which is the task's weight in the draw, never below a floor, so that every task comes back.

Guarantees: seeded; a draw depends on the seed, the position and what was recorded before it, nothing else, and a task
is not drawn again before its group was recorded (unless all are in flight). With `state_dict` a resumed run draws what
an uninterrupted one would have drawn. Positions are asked for in rising order the first time, as the pipeline admits
them. One draw costs time in proportion to the number of tasks (half a millisecond for 10,000).
"""

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import FiniteFloat, NonNegativeInt

from conf.schema.algo import DifficultySampler
from rewards.carriers import SqlTask
from rollout.tasks.stream import StreamDamaged, check_identity, state_as, stream_identity

PRIOR = 0.5
"""Right and wrong completions that every task is taken to have before any was seen (Jeffreys)."""


@dataclass(slots=True)
class Tried:
    """Completions of one task so far, older ones discounted."""

    scored: FiniteFloat = 0.0
    right: FiniteFloat = 0.0

    @property
    def pass_rate(self) -> float:
        """Estimate in (0, 1); 0.5 for a task that was never tried."""
        return (self.right + PRIOR) / (self.scored + 2 * PRIOR)


@dataclass(frozen=True, slots=True)
class _State:
    """What is saved beside the stream's identity."""

    next: NonNegativeInt
    open: list[tuple[NonNegativeInt, str]]
    """(position, task id)."""
    tried: dict[str, Tried]
    """By task id."""


def chance_to_teach(pass_rate: float, group_size: int) -> float:
    """Probability that a group holds right and wrong completions."""
    return 1.0 - pass_rate**group_size - (1.0 - pass_rate) ** group_size


class DifficultyStream:
    def __init__(self, tasks: Sequence[SqlTask], seed: int, *, config: DifficultySampler, group_size: int) -> None:
        """Raises DataError for an empty sequence."""
        self._identity = stream_identity(tasks, seed, "difficulty")
        self._tasks = tuple(tasks)
        self._places = {task.id: place for place, task in enumerate(self._tasks)}
        self._seed = seed
        self._config = config
        self._group_size = group_size
        self._tried: dict[int, Tried] = {}
        self._weights = [max(config.floor, chance_to_teach(Tried().pass_rate, group_size))] * len(self._tasks)
        self._open: dict[int, int] = {}
        self._next = 0

    def __len__(self) -> int:
        return len(self._tasks)

    def task_at(self, position: int) -> SqlTask:
        """Draws the positions up to this one that were not drawn yet. Raises KeyError for one that was recorded."""
        while self._next <= position:
            self._open[self._next] = self._draw(self._next)
            self._next += 1
        return self._tasks[self._open[position]]

    def record(self, position: int, correct: Sequence[bool]) -> None:
        place = self._open.pop(position)
        tried = self._tried.setdefault(place, Tried())
        tried.scored = self._config.memory * tried.scored + len(correct)
        tried.right = self._config.memory * tried.right + sum(correct)
        self._weigh(place)

    def pass_rate(self, task_id: str) -> float:
        """Estimate of a task's pass rate, 0.5 before it was tried."""
        return self._tried.get(self._places[task_id], Tried()).pass_rate

    def state_dict(self) -> dict[str, Any]:
        return self._identity | {
            "next": self._next,
            "open": [[position, self._tasks[place].id] for position, place in self._open.items()],
            "tried": {self._tasks[place].id: asdict(tried) for place, tried in self._tried.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        check_identity(state, self._identity)
        saved = state_as(_State, state)
        strange = [task for task in (*(task for _, task in saved.open), *saved.tried) if task not in self._places]
        if strange:
            raise StreamDamaged(f"it names {strange[0]!r}, which is no task")
        self._next = saved.next
        self._open = {position: self._places[task] for position, task in saved.open}
        self._tried = {self._places[task]: tried for task, tried in saved.tried.items()}
        for place in self._tried:
            self._weigh(place)

    def _weigh(self, place: int) -> None:
        chance = chance_to_teach(self._tried[place].pass_rate, self._group_size)
        self._weights[place] = max(self._config.floor, chance)

    def _draw(self, position: int) -> int:
        weights = list(self._weights)
        if len(self._open) < len(weights):
            for place in self._open.values():
                weights[place] = 0.0
        return random.Random(f"{self._seed}/{position}").choices(range(len(weights)), weights)[0]
