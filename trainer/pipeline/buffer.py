"""Which groups may be in flight, and which of them the learner takes next. Pure: no clock, no Ray, no asyncio.

A position of the task stream is admitted once, generated and scored elsewhere, and consumed in stream order,
`batch_size` at a time, whatever the order in which groups finish. So a resumed run needs no more than the number of
consumed positions; without resampling, step k consumes positions k*batch_size to (k+1)*batch_size - 1.

Who blocks whom: admission waits for `advance` (the learner has finished a step); `take` waits for the oldest positions
to be completed. A slot is freed by `advance`, never by a failure: a group that fails is generated again in its slot.

With resampling, a group that teaches nothing is rejected: its slot is free at once, its position is consumed with the
step that it was drawn for, and the step goes on with the positions after it. A step may reject `max_rejected`; then
it takes what there is. Rejected groups come out of `take` beside the batch, so every position is handed over once.

Capacity: at most (max_staleness + 1) * batch_size positions are admitted and neither trained nor rejected. A group
admitted at version v then has fewer than (max_staleness + 1) * batch_size such positions before it, so it is consumed
at version v + max_staleness at the latest. The age of the oldest token is checked all the same when a batch is taken,
because a restarted worker could answer with old weights.
"""

from dataclasses import dataclass
from itertools import islice
from typing import Generic, Protocol, TypeVar


class Aged(Protocol):
    """What the buffer needs to know of an item."""

    @property
    def oldest_version(self) -> int: ...


Item = TypeVar("Item", bound=Aged)


class BufferMisuse(Exception):
    """The pipeline broke the buffer's protocol: a programming error that must end the run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stale(Generic[Item]):
    """A completed item that is too old to be trained on; its position is in flight again."""

    position: int
    item: Item


class GroupBuffer(Generic[Item]):
    def __init__(
        self, *, batch_size: int, max_staleness: int, consumed: int = 0, version: int = 0, max_rejected: int = 0
    ) -> None:
        """`consumed` positions were trained on before (a resumed run); `version` is the policy's current version;
        `max_rejected` groups of one step may be replaced by others."""
        self._batch_size = batch_size
        self._max_rejected = max_rejected
        self._max_staleness = max_staleness
        self._version = version
        self._consumed = consumed
        self._next = consumed
        self._training = 0
        self._items: dict[int, Item] = {}
        self._rejected: dict[int, Item] = {}

    @property
    def batch_size(self) -> int:
        return self._batch_size

    @property
    def consumed(self) -> int:
        """Positions whose step has ended; the checkpoint's stream position."""
        return self._consumed

    @property
    def version(self) -> int:
        return self._version

    @property
    def in_flight(self) -> int:
        """Admitted positions that no learner has taken yet and that were not rejected."""
        return self._next - self._consumed - self._training - len(self._rejected)

    def can_admit(self) -> bool:
        return self._next - self._consumed - len(self._rejected) < (self._max_staleness + 1) * self._batch_size

    def admit(self) -> int:
        """The next position to generate. Raises BufferMisuse when there is no free slot."""
        if not self.can_admit():
            raise BufferMisuse(f"position {self._next} admitted beyond capacity")
        self._next += 1
        return self._next - 1

    def complete(self, position: int, item: Item) -> None:
        """Stores a generated and scored group. Raises BufferMisuse for a position that is not in flight."""
        known = position in self._items or position in self._rejected
        if not self._consumed + self._training <= position < self._next or known:
            raise BufferMisuse(f"position {position} completed while not in flight")
        self._items[position] = item

    def ready(self) -> list[tuple[int, Item]]:
        """The next batch's completed groups, in stream order."""
        return [(p, self._items[p]) for p in self._window() if p in self._items]

    def can_reject(self) -> bool:
        """Whether the next batch may still replace a group by another."""
        return len(self._rejected) < self._max_rejected

    def reject(self, position: int) -> None:
        """A group of the next batch teaches nothing: frees its slot. Raises BufferMisuse for any other position, and
        beyond the step's limit."""
        if not self.can_reject() or position not in self._items or position not in self._window():
            raise BufferMisuse(f"position {position} was rejected beyond the limit or before it was ready")
        self._rejected[position] = self._items.pop(position)

    def waiting_for(self) -> list[int]:
        """Positions of the next batch that are not completed yet."""
        return [p for p in self._window() if p not in self._items]

    def take(self) -> tuple[list[Item], list[Stale[Item]]]:
        """The next batch and the groups rejected for it, in stream order, or ([], stale) when some of its groups were
        too old and are in flight again.

        Raises BufferMisuse when the batch is not complete or the previous one has not been advanced.
        """
        positions = self._window()
        if self._training or len(positions) < self._batch_size or self.waiting_for():
            raise BufferMisuse("a batch was taken before it was complete, or before the previous step ended")
        oldest = self._version - self._max_staleness
        stale = [Stale(position=p, item=self._items[p]) for p in positions if self._items[p].oldest_version < oldest]
        if stale:
            for entry in stale:
                del self._items[entry.position]
            return [], stale
        # A window only ever grows to the right, so every rejected position lies before its end.
        end = positions[-1] + 1
        self._training = end - self._consumed
        taken = {p: self._items.pop(p) for p in positions} | self._rejected
        self._rejected = {}
        return [taken[p] for p in range(self._consumed, end)], []

    def _window(self) -> list[int]:
        """Positions of the next batch, as far as they are admitted."""
        start = self._consumed + self._training
        admitted = (p for p in range(start, self._next) if p not in self._rejected)
        return list(islice(admitted, self._batch_size))

    def advance(self, version: int) -> None:
        """The taken batch has been trained on (or dropped) and the policy is now `version`; frees its slots."""
        if not self._training or version < self._version:
            raise BufferMisuse("advanced without a taken batch, or to an older version")
        self._consumed += self._training
        self._training = 0
        self._version = version
