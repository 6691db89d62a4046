"""SQL executors that lose some queries, as an infrastructure that fails does."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from rewards.carriers import Execution
from rewards.sql.executor import ExecutorPool
from rewards.sql.query import Query

T = TypeVar("T")


class LosingPool(ExecutorPool):
    """Of a real pool; `loses` chooses."""

    def __init__(self, executors: int) -> None:
        super().__init__(executors)
        self.loses: Callable[[Query], bool] = lambda query: False
        self.own_doing = False
        """Whether harmless queries are answered meanwhile."""

    def each(self, queries: Sequence[Query], take: Callable[[int, Execution], T]) -> list[T]:
        gone = Execution(status="unscorable", error="lost", own_doing=self.own_doing)

        def taken(index: int, execution: Execution) -> T:
            return take(index, gone if self.loses(queries[index]) else execution)

        return super().each(queries, taken)
