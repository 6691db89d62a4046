"""Times right answers against their gold queries, for BIRD's efficiency scores.

Both queries run alternately in one executor process that does nothing else, after one untimed run each, so that neither
pays for a cold page cache. The times include handing the result over, which both pay.
"""

import time

from benchmarks.metrics.bird.efficiency import Efficiency, efficiency
from conf.schema.benchmark import BenchmarkExecution
from rewards.sql.executor import ExecutorPool, Query


class Stopwatch:
    """Use as a context manager."""

    def __init__(self, config: BenchmarkExecution, repeats: int) -> None:
        self._budget = config.budget
        self._repeats = repeats
        self._pool = ExecutorPool(1)

    def __enter__(self) -> "Stopwatch":
        return self

    def __exit__(self, *exc: object) -> None:
        self._pool.close()

    def compare(self, database: str, gold: str, predicted: str) -> Efficiency | None:
        """None when one of the queries does not run to its end again."""
        queries = [self._query(database, gold), self._query(database, predicted)]
        if any(execution.status != "ok" for execution in self._pool.run(queries)):
            return None
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(self._repeats):
            for query, seconds in zip(queries, times, strict=True):
                started = time.perf_counter()
                self._pool.run([query])
                seconds.append(time.perf_counter() - started)
        return efficiency(*times)

    def _query(self, database: str, sql: str) -> Query:
        return Query(database=database, sql=sql, budget=self._budget, text_errors="strict")
