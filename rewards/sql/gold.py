"""Gold answers: executed once per database content, cached with their status.

A gold that fails or exceeds its budget is unusable, never "empty": nothing is scored against it. A gold whose rows hang
on scan order is flagged. What the infrastructure did (a lost executor, a missing file) is reported and not cached.
Golds that read the clock are executed for every call, so that they and the candidates see the same day.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from conf.schema.data import Denotation
from conf.schema.reward import BudgetConfig
from rewards.carriers import Execution
from rewards.sql.cache import BoundedCache
from rewards.sql.content import content_key
from rewards.sql.denotation import equal
from rewards.sql.executor import ExecutorPool, Query
from rewards.sql.order import tie_probes
from rewards.sql.parse import has_top_level_order_by
from rewards.sql.schema import DatabaseUnreadable

CACHED_CELLS = 4_000_000
"""Cells of gold results kept in memory."""
_CLOCK = re.compile(
    r"'now'|\bcurrent_(?:date|time|timestamp)\b|\b(?:date|time|datetime|julianday|unixepoch)\s*\(\s*\)", re.I
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Gold:
    """One gold query with its results."""

    sql: str
    ordered: bool
    """Has a top-level ORDER BY."""
    executions: tuple[Execution, ...]
    """One for each database instance, in the task's order."""
    order_dependent: bool = False

    @property
    def usable(self) -> bool:
        return all(execution.status == "ok" for execution in self.executions)

    @property
    def infrastructure(self) -> bool:
        """Whether the infrastructure, not the query, kept it from running."""
        return any(execution.status == "unscorable" for execution in self.executions)

    @property
    def reason(self) -> str | None:
        """Why it is unusable."""
        return next((str(execution.error) for execution in self.executions if execution.status != "ok"), None)


def reads_clock(sql: str) -> bool:
    """Whether the result may depend on when the query runs."""
    return _CLOCK.search(sql) is not None


class GoldStore:
    """Executes golds through `pool` under `budget`. Not thread-safe."""

    def __init__(self, pool: ExecutorPool, budget: BudgetConfig) -> None:
        self._pool = pool
        self._budget = budget
        self._cache: BoundedCache[tuple[object, ...], Gold] = BoundedCache(CACHED_CELLS, _cells)

    def results(self, sqls: Sequence[str], databases: Sequence[str], policy: Denotation) -> list[Gold]:
        """One Gold for each query. A database that cannot be read makes all of them unusable."""
        try:
            contents = tuple(content_key(path) for path in databases)
        except DatabaseUnreadable as error:
            lost = Execution(status="unscorable", error=str(error))
            return [Gold(sql=sql, ordered=False, executions=(lost,)) for sql in sqls]
        return [self._one(sql, databases, (contents, sql, policy)) for sql in sqls]

    def _one(self, sql: str, databases: Sequence[str], key: tuple[tuple[str, ...], str, Denotation]) -> Gold:
        volatile = reads_clock(sql)
        known = None if volatile else self._cache.get(key)
        if known is not None:
            return known
        gold = self._execute(sql, databases, key[2])
        if not volatile and not gold.infrastructure:
            self._cache.put(key, gold)
        return gold

    def _execute(self, sql: str, databases: Sequence[str], policy: Denotation) -> Gold:
        """Runs the gold and its probes on all instances in one batch."""
        ordered = policy == "spider" and has_top_level_order_by(sql)
        probes = tie_probes(sql)
        forward = [Query(database=path, sql=sql, budget=self._budget) for path in databases]
        backward = [Query(database=path, sql=sql, budget=self._budget, reverse_unordered=True) for path in databases]
        ties = [Query(database=path, sql=probe.sql, budget=self._budget) for probe in probes for path in databases]
        executions = self._pool.run([*forward, *backward, *ties])
        count = len(databases)
        direct, reverse, tied = executions[:count], executions[count : 2 * count], executions[2 * count :]
        moved = any(
            first.status == second.status == "ok" and not equal(first, second, policy=policy, ordered=ordered)
            for first, second in zip(direct, reverse, strict=True)
        )
        found = [probe for probe in probes for _ in databases]
        ties_show = any(probe.shows_tie(run.rows) for probe, run in zip(found, tied, strict=True))
        return Gold(sql=sql, ordered=ordered, executions=tuple(direct), order_dependent=moved or ties_show)


def _cells(gold: Gold) -> int:
    return 50 + sum(len(run.rows) * (len(run.columns) + 1) for run in gold.executions)
