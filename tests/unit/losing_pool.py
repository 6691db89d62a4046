"""SQL executors that lose some queries, as an infrastructure that fails does."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from rewards.carriers import Execution
from rewards.sql.executor import ExecutorPool, Query

T = TypeVar("T")


class LosingPool(ExecutorPool):
    """Of a real pool; `loses` chooses."""

    def __init__(self, executors: int) -> None:
        super().__init__(executors)
        self.loses: Callable[[Query], bool] = lambda query: False

    def each(self, queries: Sequence[Query], take: Callable[[int, Execution], T]) -> list[T]:
        gone = Execution(status="unscorable", error="lost")
        return super().each(queries, lambda i, execution: take(i, gone if self.loses(queries[i]) else execution))
