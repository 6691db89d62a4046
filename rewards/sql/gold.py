"""Gold answers: executed once per database content, cached with their status.

A gold that fails or exceeds its budget is unusable, never "empty": nothing is scored against it. What a gold leaves
open is found out once: rows that its top-level ORDER BY does not tell apart may exchange (ties.py), the last bits of
its sums do not count (inexact.py), and a gold that hangs on any other order is flagged (order.py). What the
infrastructure did (a lost executor, a missing file) is reported and not cached.

Memory: the golds of as many tasks are held at a time as take HELD_BYTES, and a task whose golds alone take more cannot
be scored. What is executed to find out what a gold leaves open is compared as it comes and not held.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from conf.schema.data import Denotation
from conf.schema.reward import BudgetConfig
from rewards.carriers import Execution
from rewards.sql.cache import BoundedCache, rows_bytes
from rewards.sql.content import content_key
from rewards.sql.executor import ExecutorPool
from rewards.sql.freedom import Place, examined
from rewards.sql.gold_answer import Gold
from rewards.sql.inexact import inexact_views, sums_inexactly
from rewards.sql.parse import has_top_level_order_by
from rewards.sql.query import Query
from rewards.sql.schema import DatabaseUnreadable
from rewards.sql.ties import ties_bytes

CACHED_BYTES = 128 * 2**20
"""Gold results kept in memory between calls."""
HELD_BYTES = 256 * 2**20
"""Gold results, with the rows that tie with them, of the tasks that `GoldStore.chunks` gives at a time, and of any one
task."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GoldRequest:
    """The golds of one task."""

    sqls: Sequence[str]
    databases: Sequence[str]
    policy: Denotation


_Key = tuple[tuple[str, ...], str, Denotation]
"""(contents of the instances, query, policy)."""
_Keys = list[_Key] | str
"""Of a task's golds, or why the database cannot be read."""


class GoldStore:
    """Executes golds through `pool` under `budget`. Not thread-safe."""

    def __init__(self, pool: ExecutorPool, budget: BudgetConfig) -> None:
        self._pool = pool
        self._budget = budget
        self._cache: BoundedCache[_Key, Gold] = BoundedCache(CACHED_BYTES, _bytes)

    def results(self, sqls: Sequence[str], databases: Sequence[str], policy: Denotation) -> list[Gold]:
        """One Gold for each query. See `many`."""
        return self.many([GoldRequest(sqls=sqls, databases=databases, policy=policy)])[0]

    def many(self, requests: Sequence[GoldRequest]) -> list[list[Gold]]:
        """The golds of several tasks, all held at once. A database that cannot be read makes its golds unusable."""
        return [golds for chunk in self.chunks(requests) for golds in chunk]

    def chunks(self, requests: Sequence[GoldRequest]) -> Iterator[list[list[Gold]]]:
        """The golds of the next few tasks, in order, as many at a time as HELD_BYTES hold: mostly all.

        A caller that drops a chunk before it asks for the next never holds more.
        """
        parts = [list(requests)]
        while parts:
            part = parts.pop()
            golds = self._settled(part)
            if golds is not None:
                yield golds
            elif len(part) == 1:
                yield [[_too_large(sql, len(part[0].databases)) for sql in part[0].sqls]]
            else:
                half = len(part) // 2
                parts += [part[half:], part[:half]]

    def _settled(self, requests: Sequence[GoldRequest]) -> list[list[Gold]] | None:
        """The golds of some tasks, executed in one batch; None where they take more than HELD_BYTES."""
        found: dict[_Key, Gold] = {}
        wanted: dict[_Key, Sequence[str]] = {}
        keys = [self._keys(request) for request in requests]
        for request, own in zip(requests, keys, strict=True):
            for key in own if isinstance(own, list) else []:
                known = self._cache.get(key)
                if known is not None:
                    found[key] = known
                else:
                    wanted[key] = request.databases
        executed = self._executed(wanted, sum(map(_bytes, found.values())))
        if executed is None:
            return None
        golds = [_gold(key, runs, wanted[key]) for key, runs in executed.items()]
        places = [Place(databases=wanted[key], policy=key[2]) for key in executed]
        room = HELD_BYTES - sum(map(_bytes, (*found.values(), *golds)))
        known_golds = examined(golds, places, self._pool, self._budget, room)
        if known_golds is None:
            return None
        for key, gold in zip(executed, known_golds, strict=True):
            found[key] = gold
            if not gold.infrastructure and not gold.order_lost:
                self._cache.put(key, gold)
        return [
            [found[key] for key in own] if isinstance(own, list) else [_lost(sql, own) for sql in request.sqls]
            for request, own in zip(requests, keys, strict=True)
        ]

    def _executed(self, wanted: Mapping[_Key, Sequence[str]], held: int) -> dict[_Key, tuple[Execution, ...]] | None:
        """The golds on their instances; None where with what is held already they take more than HELD_BYTES."""
        queries = [Query(database=p, sql=key[1], budget=self._budget) for key, paths in wanted.items() for p in paths]

        def take(index: int, execution: Execution) -> Execution | None:
            nonlocal held
            held += rows_bytes(execution.rows)
            return execution if held <= HELD_BYTES else None

        runs = iter(self._pool.each(queries, take))
        executed = {key: tuple(run for _ in paths if (run := next(runs)) is not None) for key, paths in wanted.items()}
        return executed if held <= HELD_BYTES else None

    @staticmethod
    def _keys(request: GoldRequest) -> _Keys:
        """Of the golds of one task."""
        try:
            contents = tuple(content_key(path) for path in request.databases)
        except DatabaseUnreadable as error:
            return str(error)
        return [(contents, sql, request.policy) for sql in request.sqls]


def _gold(key: _Key, executions: tuple[Execution, ...], databases: Sequence[str]) -> Gold:
    """A gold of which nothing else is known."""
    _, sql, policy = key
    try:
        views = inexact_views(databases[0])
    except DatabaseUnreadable:  # then no query on it runs
        views = frozenset()
    return Gold(
        sql=sql,
        ordered=policy == "spider" and has_top_level_order_by(sql),
        executions=executions,
        inexact=sums_inexactly(sql, views),
    )


def _lost(sql: str, reason: str) -> Gold:
    return Gold(sql=sql, ordered=False, executions=(Execution(status="unscorable", error=reason),))


def _too_large(sql: str, instances: int) -> Gold:
    message = f"the results of the task's golds take more than {HELD_BYTES // 2**20} MiB"
    run = Execution(status="error", error_kind="too_large", error=message)
    return Gold(sql=sql, ordered=False, executions=(run,) * instances)


def _bytes(gold: Gold) -> int:
    """Of the gold's results and the rows that tie with them."""
    return sum(rows_bytes(run.rows) for run in gold.executions) + sum(map(ties_bytes, gold.ties))
