"""SQL executors that lose some queries, as an infrastructure that fails does."""

from collections.abc import Callable, Sequence

from rewards.carriers import Execution
from rewards.sql.executor import ExecutorPool, Query


class LosingPool(ExecutorPool):
    """Of a real pool; `loses` chooses."""

    def __init__(self, executors: int) -> None:
        super().__init__(executors)
        self.loses: Callable[[Query], bool] = lambda query: False
        self.own_doing = False
        """Whether harmless queries are answered meanwhile."""

    def run(self, queries: Sequence[Query]) -> list[Execution]:
        gone = Execution(status="unscorable", error="lost", own_doing=self.own_doing)
        return [
            gone if self.loses(query) else execution
            for query, execution in zip(queries, super().run(queries), strict=True)
        ]
