"""Executes the queries of one block of questions, each different one once, within the run's budget."""

import os
from collections.abc import Iterable
from typing import Literal

from conf.schema.benchmark import BenchmarkExecution
from rewards.sql.executor import ExecutorPool
from rewards.sql.query import Query
from rewards.sql.results import Results

Call = tuple[str, str]
"""(database file, SQL text)."""
Known = Results[Call]


class Runner:
    """Use as a context manager; results live as long as the block that asked for them."""

    def __init__(self, config: BenchmarkExecution, text_errors: Literal["replace", "strict", "ignore"]) -> None:
        self._budget = config.budget
        self._text_errors = text_errors
        self._pool = ExecutorPool(config.executors or os.cpu_count() or 1)
        self.executed = 0
        """Queries run so far."""

    def __enter__(self) -> "Runner":
        return self

    def __exit__(self, *exc: object) -> None:
        self._pool.close()

    def run(self, calls: Iterable[Call], known: Known) -> None:
        """Adds the executions of all calls that are not known yet."""
        fresh = [call for call in dict.fromkeys(calls) if call not in known]
        queries = [
            Query(database=database, sql=sql, budget=self._budget, text_errors=self._text_errors)
            for database, sql in fresh
        ]
        self._pool.each(queries, lambda index, execution: known.put(fresh[index], execution))
        self.executed += len(fresh)
