"""Which groups may be in flight, and which of them the learner takes next. Pure: no clock, no Ray, no asyncio.

A position of the task stream is admitted once, generated and scored elsewhere, and consumed in stream order,
`batch_size` at a time. So step k always consumes positions k*batch_size to (k+1)*batch_size - 1, whatever the order in
which groups finish: a resumed run needs no more than the number of consumed positions.

Who blocks whom: admission waits for `advance` (the learner has finished a step); `take` waits for the oldest positions
to be completed. A slot is freed by `advance`, never by a failure: a group that fails is generated again in its slot.

Capacity: at most (max_staleness + 1) * batch_size positions are admitted and not yet trained. A group admitted at
version v then has fewer than (max_staleness + 1) * batch_size positions before it, so it is consumed at version v +
max_staleness at the latest. The age of the oldest token is checked all the same when a batch is taken, because a
restarted worker could answer with old weights.
"""

from dataclasses import dataclass
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
    def __init__(self, *, batch_size: int, max_staleness: int, consumed: int = 0, version: int = 0) -> None:
        """`consumed` positions were trained on before (a resumed run); `version` is the policy's current version."""
        self._batch_size = batch_size
        self._max_staleness = max_staleness
        self._version = version
        self._consumed = consumed
        self._next = consumed
        self._training = 0
        self._items: dict[int, Item] = {}

    @property
    def consumed(self) -> int:
        """Positions whose step has ended; the checkpoint's stream position."""
        return self._consumed

    @property
    def version(self) -> int:
        return self._version

    @property
    def in_flight(self) -> int:
        """Admitted positions that no learner has taken yet."""
        return self._next - self._consumed - self._training

    def can_admit(self) -> bool:
        return self._next - self._consumed < (self._max_staleness + 1) * self._batch_size

    def admit(self) -> int:
        """The next position to generate. Raises BufferMisuse when there is no free slot."""
        if not self.can_admit():
            raise BufferMisuse(f"position {self._next} admitted beyond capacity")
        self._next += 1
        return self._next - 1

    def complete(self, position: int, item: Item) -> None:
        """Stores a generated and scored group. Raises BufferMisuse for a position that is not in flight."""
        if not self._consumed + self._training <= position < self._next or position in self._items:
            raise BufferMisuse(f"position {position} completed while not in flight")
        self._items[position] = item

    def waiting_for(self) -> list[int]:
        """Positions of the next batch that are not completed yet."""
        start = self._consumed + self._training
        return [p for p in range(start, min(start + self._batch_size, self._next)) if p not in self._items]

    def take(self) -> tuple[list[Item], list[Stale[Item]]]:
        """The next batch in stream order, or ([], stale) when some of its groups were too old and are in flight again.

        Raises BufferMisuse when the batch is not complete or the previous one has not been advanced.
        """
        start = self._consumed
        positions = range(start, start + self._batch_size)
        if self._training or any(p not in self._items for p in positions):
            raise BufferMisuse("a batch was taken before it was complete, or before the previous step ended")
        oldest = self._version - self._max_staleness
        stale = [Stale(position=p, item=self._items[p]) for p in positions if self._items[p].oldest_version < oldest]
        if stale:
            for entry in stale:
                del self._items[entry.position]
            return [], stale
        self._training = self._batch_size
        return [self._items.pop(p) for p in positions], []

    def advance(self, version: int) -> None:
        """The taken batch has been trained on (or dropped) and the policy is now `version`; frees its slots."""
        if not self._training or version < self._version:
            raise BufferMisuse("advanced without a taken batch, or to an older version")
        self._consumed += self._training
        self._training = 0
        self._version = version
