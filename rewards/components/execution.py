"""The execution component: 2 for a gold answer's result, 1 for a query that runs but differs, 0 for one that does not
run.

`instances=all`: right means right on every instance of the database, whatever keeps it from being right elsewhere.
`empty_needs_empty_everywhere`: where a gold is empty on the primary instance but not on another, the answer is
decided on all of them, so that an empty result alone proves nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from conf.schema.data import Denotation
from conf.schema.reward import ExecutionReward
from rewards.carriers import ErrorKind, Execution
from rewards.sql.agreement import Result, agreed, is_inexact
from rewards.sql.cache import rows_bytes
from rewards.sql.denotation import digest, is_trivial
from rewards.sql.executor import ExecutorPool
from rewards.sql.gold_answer import Gold
from rewards.sql.parse import has_top_level_order_by
from rewards.sql.query import Query

ERROR_CHARS = 300
REAL_CELLS = 64
REAL_BYTES = 6 * 2**10
"""Larger results of sums are told apart to the last bit; verdicts are cached, so they have to stay small. REAL_CELLS
numbers take less than REAL_BYTES, one text may take more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """What executing one candidate showed."""

    level: int
    """2, 1 or 0."""
    error_kind: ErrorKind | None = None
    """Set exactly when the level is 0."""
    error: str | None = None
    digest: str | None = None
    """Of the primary instance's result."""
    reals: Result | None = None
    """The result itself where it holds floats and is small: other candidates' sums may differ from its in the last bits
    alone."""
    trivial: bool = False
    unscorable: bool = False
    """Nobody knows the result; the level means nothing."""
    own_doing: bool = False
    """Of an unscorable one: the query's, not the infrastructure's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One query with what decides about it."""

    sql: str
    golds: Sequence[Gold]
    """Usable ones; they hold one execution for each of `databases`."""
    databases: Sequence[str]
    policy: Denotation


@dataclass(frozen=True, kw_only=True, slots=True)
class _Primary:
    """What the primary instance says of a candidate."""

    judged: Judged
    matching: Sequence[Gold]
    """Golds that it equals there."""


class ExecutionJudge:
    """Executes candidates and compares them with the golds of their task, each result as it comes: rows are not kept
    beyond that."""

    def __init__(self, pool: ExecutorPool, config: ExecutionReward, *, empty_needs_empty_everywhere: bool) -> None:
        self._pool = pool
        self._config = config
        self._strict_empty = empty_needs_empty_everywhere

    def judge(self, candidates: Sequence[Candidate]) -> list[Judged]:
        """One verdict a candidate, all executed in one batch; those right on the primary instance go on to the
        others."""
        primary = self._pool.each(
            [self._query(c.databases[0], c.sql) for c in candidates],
            lambda number, execution: _on_primary(candidates[number], execution),
        )
        onward = [i for i, c in enumerate(candidates) if primary[i].matching and self._instances(c) > 1]
        steps = [(i, instance) for i in onward for instance in range(1, len(candidates[i].databases))]
        more = self._pool.each(
            [self._query(candidates[i].databases[instance], candidates[i].sql) for i, instance in steps],
            lambda number, execution: _accepting(
                primary[steps[number][0]].matching, steps[number][1], execution, candidates[steps[number][0]].policy
            ),
        )
        verdicts = [one.judged for one in primary]
        found = iter(more)
        for i in onward:
            verdicts[i] = _on_all_instances(primary[i].judged, [next(found) for _ in candidates[i].databases[1:]])
        return verdicts

    def _instances(self, candidate: Candidate) -> int:
        """How many instances decide."""
        blind = self._strict_empty and any(
            not gold.executions[0].rows and any(other.rows for other in gold.executions[1:]) for gold in candidate.golds
        )
        return len(candidate.databases) if self._config.instances == "all" or blind else 1

    def _query(self, database: str, sql: str) -> Query:
        return Query(database=database, sql=sql, budget=self._config.budget)


def _on_primary(candidate: Candidate, execution: Execution) -> _Primary:
    if execution.status != "ok":
        return _Primary(judged=_failed(execution), matching=())
    matching = [gold for gold in candidate.golds if gold.accepts(0, execution, policy=candidate.policy)]
    # The candidate's own ORDER BY, as in benchmarks and ask: the gold's would tell voters about the gold.
    ordered = candidate.policy == "spider" and has_top_level_order_by(candidate.sql)
    judged = Judged(
        level=2 if matching else 1,
        digest=digest(execution, policy=candidate.policy, ordered=ordered),
        reals=_reals(candidate, execution, ordered),
        trivial=is_trivial(execution),
    )
    return _Primary(judged=judged, matching=matching)


def _failed(execution: Execution) -> Judged:
    error = (execution.error or "")[:ERROR_CHARS]
    return Judged(
        level=0,
        error_kind=execution.error_kind,
        error=error,
        unscorable=execution.status == "unscorable",
        own_doing=execution.own_doing,
    )


def _accepting(
    golds: Sequence[Gold], instance: int, execution: Execution, policy: Denotation
) -> frozenset[int] | Judged:
    """Numbers of the golds that accept the result of another instance; the verdict where it was lost."""
    if execution.status == "unscorable":
        return _failed(execution)
    return frozenset(n for n, gold in enumerate(golds) if gold.accepts(instance, execution, policy=policy))


def _on_all_instances(primary: Judged, others: Sequence[frozenset[int] | Judged]) -> Judged:
    """The verdict on a candidate that is right on the primary instance; one gold must match on all of them."""
    accepting = []
    for found in others:
        if isinstance(found, Judged):
            return found
        accepting.append(found)
    return primary if frozenset.intersection(*accepting) else replace(primary, level=1)


def agreed_digests(judged: Sequence[Judged | None], policy: Denotation) -> list[str | None]:
    """The digests of one task's candidates, the same for results whose sums differ in the last bits alone."""
    digests = [one.digest if one is not None else None for one in judged]
    reals = [one.reals if one is not None else None for one in judged]
    if not any(one is not None and one.inexact for one in reals):
        return digests
    together = agreed(reals, policy)
    return [own if made is None else made for own, made in zip(digests, together, strict=True)]


def _reals(candidate: Candidate, execution: Execution, ordered: bool) -> Result | None:
    rows = execution.rows
    if len(rows) * len(execution.columns) > REAL_CELLS or not any(type(v) is float for row in rows for v in row):
        return None
    if rows_bytes(rows) > REAL_BYTES:
        return None
    return Result(rows=rows, ordered=ordered, inexact=is_inexact(candidate.sql, candidate.databases[0]))
