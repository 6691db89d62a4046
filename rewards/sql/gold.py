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
from rewards.sql.order import TieProbe, tie_probes
from rewards.sql.parse import has_top_level_order_by
from rewards.sql.schema import DatabaseUnreadable

CACHED_CELLS = 4_000_000
"""Cells of gold results kept in memory."""
_CLOCK = re.compile(
    r"""'now'|"now"|\bcurrent_(?:date|time|timestamp)\b|\b(?:date|time|datetime|julianday|unixepoch)\s*\(\s*\)"""
    r"""|\bstrftime\s*\(\s*(?:'[^']*'|"[^"]*")\s*\)""",
    re.I,
)
"""Without a time of their own, SQLite's time functions take the present; it reads "now" as text where no column has
that name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gold:
    """One gold query with its results."""

    sql: str
    ordered: bool
    """Has a top-level ORDER BY."""
    executions: tuple[Execution, ...]
    """One for each database instance, in the task's order."""
    order_dependent: bool = False
    order_unknown: bool = False
    """Nothing showed that its rows hang on scan order, but the infrastructure lost a query that might have."""

    @property
    def usable(self) -> bool:
        return all(execution.status == "ok" for execution in self.executions)

    def accepts(self, instance: int, execution: Execution, *, policy: Denotation) -> bool:
        """Whether an execution on the instance of this number is the answer that this gold gives there."""
        return equal(self.executions[instance], execution, policy=policy, ordered=self.ordered)

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


@dataclass(frozen=True, kw_only=True, slots=True)
class GoldRequest:
    """The golds of one task."""

    sqls: Sequence[str]
    databases: Sequence[str]
    policy: Denotation


_Key = tuple[tuple[str, ...], str, Denotation]
"""(contents of the instances, query, policy)."""


class GoldStore:
    """Executes golds through `pool` under `budget`. Not thread-safe."""

    def __init__(self, pool: ExecutorPool, budget: BudgetConfig) -> None:
        self._pool = pool
        self._budget = budget
        self._cache: BoundedCache[_Key, Gold] = BoundedCache(CACHED_CELLS, _cells)

    def results(self, sqls: Sequence[str], databases: Sequence[str], policy: Denotation) -> list[Gold]:
        """One Gold for each query. See `many`."""
        return self.many([GoldRequest(sqls=sqls, databases=databases, policy=policy)])[0]

    def many(self, requests: Sequence[GoldRequest]) -> list[list[Gold]]:
        """The golds of several tasks, executed in one batch. A database that cannot be read makes its golds
        unusable."""
        found: dict[_Key, Gold] = {}
        wanted: dict[_Key, _Plan] = {}
        keys = [self._keys(request) for request in requests]
        for request, own in zip(requests, keys, strict=True):
            for key in own if isinstance(own, list) else []:
                known = None if reads_clock(key[1]) else self._cache.get(key)
                if known is not None:
                    found[key] = known
                elif key not in wanted:
                    wanted[key] = _plan(key[1], request.databases, key[2], self._budget)
        executions = iter(self._pool.run([query for plan in wanted.values() for query in plan.queries]))
        for key, plan in wanted.items():
            gold = found[key] = plan.judge([next(executions) for _ in plan.queries])
            if not gold.infrastructure and not gold.order_unknown and not reads_clock(gold.sql):
                self._cache.put(key, gold)
        return [
            [found[key] for key in own] if isinstance(own, list) else [_lost(sql, own) for sql in request.sqls]
            for request, own in zip(requests, keys, strict=True)
        ]

    @staticmethod
    def _keys(request: GoldRequest) -> "list[_Key] | str":
        """Cache keys, or why the database cannot be read."""
        try:
            contents = tuple(content_key(path) for path in request.databases)
        except DatabaseUnreadable as error:
            return str(error)
        return [(contents, sql, request.policy) for sql in request.sqls]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Plan:
    """The queries that settle one gold: itself on every instance, the same with scans reversed, and its probes."""

    sql: str
    policy: Denotation
    ordered: bool
    instances: int
    probes: tuple[TieProbe, ...]
    queries: tuple[Query, ...]

    def judge(self, executions: Sequence[Execution]) -> Gold:
        """The gold, from one execution for each of `queries`."""
        count = self.instances
        direct, reverse, tied = executions[:count], executions[count : 2 * count], executions[2 * count :]
        moved = any(
            first.status == second.status == "ok" and not equal(first, second, policy=self.policy, ordered=self.ordered)
            for first, second in zip(direct, reverse, strict=True)
        )
        probes = [probe for probe in self.probes for _ in range(count)]
        ties = any(probe.shows_tie(run.rows) for probe, run in zip(probes, tied, strict=True))
        lost = any(run.status == "unscorable" for run in (*reverse, *tied))
        return Gold(
            sql=self.sql,
            ordered=self.ordered,
            executions=tuple(direct),
            order_dependent=moved or ties,
            order_unknown=lost and not (moved or ties),
        )


def _plan(sql: str, databases: Sequence[str], policy: Denotation, budget: BudgetConfig) -> _Plan:
    probes = tuple(tie_probes(sql))
    queries = [
        *(Query(database=path, sql=sql, budget=budget) for path in databases),
        *(Query(database=path, sql=sql, budget=budget, reverse_unordered=True) for path in databases),
        *(Query(database=path, sql=probe.sql, budget=budget) for probe in probes for path in databases),
    ]
    return _Plan(
        sql=sql,
        policy=policy,
        ordered=policy == "spider" and has_top_level_order_by(sql),
        instances=len(databases),
        probes=probes,
        queries=tuple(queries),
    )


def _lost(sql: str, reason: str) -> Gold:
    return Gold(sql=sql, ordered=False, executions=(Execution(status="unscorable", error=reason),))


def _cells(gold: Gold) -> int:
    return 50 + sum(len(run.rows) * (len(run.columns) + 1) for run in gold.executions)
