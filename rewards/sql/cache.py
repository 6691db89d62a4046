"""A bounded mapping, least recently used first out, and what results weigh in it."""

import sys
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

from rewards.carriers import Value

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")


class BoundedCache(Generic[Key, Item]):
    """Keeps items up to a total `weight`; one that is heavier than all of it is not kept. Not thread-safe."""

    def __init__(self, capacity: int, weight: Callable[[Item], int] = lambda item: 1) -> None:
        self.hits = 0
        self.misses = 0
        self._capacity = capacity
        self._weight = weight
        self._total = 0
        self._items: OrderedDict[Key, Item] = OrderedDict()

    def __len__(self) -> int:
        return len(self._items)

    def get(self, key: Key) -> Item | None:
        item = self._items.get(key)
        if item is None:
            self.misses += 1
            return None
        self.hits += 1
        self._items.move_to_end(key)
        return item

    def put(self, key: Key, item: Item) -> None:
        known = self._items.pop(key, None)
        if known is not None:
            self._total -= self._weight(known)
        weight = self._weight(item)
        if weight > self._capacity:
            return
        self._items[key] = item
        self._total += weight
        while self._total > self._capacity:
            self._total -= self._weight(self._items.popitem(last=False)[1])


def rows_bytes(rows: Sequence[tuple[Value, ...]]) -> int:
    """Memory of a result's rows and cells, as if no two shared one; rows of a gold with none weigh a little too."""
    return 200 + sum(sys.getsizeof(row) + sum(map(sys.getsizeof, row)) for row in rows)
