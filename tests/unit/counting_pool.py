"""SQL executors that tell how much they were asked."""

from collections.abc import Sequence

from rewards.carriers import Execution
from rewards.sql.executor import ExecutorPool, Query


class CountingPool(ExecutorPool):
    """Counts the queries that are really executed."""

    executed = 0

    def run(self, queries: Sequence[Query]) -> list[Execution]:
        self.executed += len(queries)
        return super().run(queries)
