"""SQL executors that tell how much they were asked."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from rewards.carriers import Execution
from rewards.sql.executor import ExecutorPool
from rewards.sql.query import Query

T = TypeVar("T")


class CountingPool(ExecutorPool):
    """Counts the queries that are really executed."""

    executed = 0

    def each(self, queries: Sequence[Query], take: Callable[[int, Execution], T]) -> list[T]:
        self.executed += len(queries)
        return super().each(queries, take)
