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
from rewards.sql.denotation import digest, is_trivial
from rewards.sql.executor import ExecutorPool, Query
from rewards.sql.gold import Gold

ERROR_CHARS = 300
REAL_CELLS = 64
"""Larger results of sums are told apart to the last bit; verdicts are cached, so they have to stay small."""


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
    """The result itself where it holds floats and at most REAL_CELLS cells: other candidates' sums may differ from its
    in the last bits alone."""
    trivial: bool = False
    unscorable: bool = False
    """The infrastructure failed; the level means nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One query with what decides about it."""

    sql: str
    golds: Sequence[Gold]
    """Usable ones; they hold one execution for each of `databases`."""
    databases: Sequence[str]
    policy: Denotation


class ExecutionJudge:
    """Executes candidates and compares them with the golds of their task."""

    def __init__(self, pool: ExecutorPool, config: ExecutionReward, *, empty_needs_empty_everywhere: bool) -> None:
        self._pool = pool
        self._config = config
        self._strict_empty = empty_needs_empty_everywhere

    def judge(self, candidates: Sequence[Candidate]) -> list[Judged]:
        """One verdict a candidate, all executed in one batch; those right on the primary instance go on to the
        others."""
        executions = self._pool.run([self._query(c.databases[0], c.sql) for c in candidates])
        matching = [_matching(c, run) for c, run in zip(candidates, executions, strict=True)]
        pairs = zip(candidates, executions, matching, strict=True)
        verdicts = [_verdict(c, run, bool(golds)) for c, run, golds in pairs]
        onward = [i for i, c in enumerate(candidates) if matching[i] and self._instances(c) > 1]
        queries = [self._query(path, candidates[i].sql) for i in onward for path in candidates[i].databases[1:]]
        more = iter(self._pool.run(queries))
        for i in onward:
            others = [next(more) for _ in candidates[i].databases[1:]]
            verdicts[i] = _on_all_instances(candidates[i], verdicts[i], matching[i], others)
        return verdicts

    def _instances(self, candidate: Candidate) -> int:
        """How many instances decide."""
        blind = self._strict_empty and any(
            not gold.executions[0].rows and any(other.rows for other in gold.executions[1:]) for gold in candidate.golds
        )
        return len(candidate.databases) if self._config.instances == "all" or blind else 1

    def _query(self, database: str, sql: str) -> Query:
        return Query(database=database, sql=sql, budget=self._config.budget)


def _matching(candidate: Candidate, execution: Execution) -> list[Gold]:
    """Golds that the candidate equals on the primary instance."""
    return [gold for gold in candidate.golds if gold.accepts(0, execution, policy=candidate.policy)]


def agreed_digests(judged: Sequence[Judged | None], policy: Denotation) -> list[str | None]:
    """The digests of one task's candidates, the same for results whose sums differ in the last bits alone."""
    digests = [one.digest if one is not None else None for one in judged]
    reals = [one.reals if one is not None else None for one in judged]
    if not any(one is not None and one.inexact for one in reals):
        return digests
    together = agreed(reals, policy)
    return [own if made is None else made for own, made in zip(digests, together, strict=True)]


def _verdict(candidate: Candidate, execution: Execution, right: bool) -> Judged:
    if execution.status == "ok":
        ordered = candidate.golds[0].ordered
        return Judged(
            level=2 if right else 1,
            digest=digest(execution, policy=candidate.policy, ordered=ordered),
            reals=_reals(candidate, execution, ordered),
            trivial=is_trivial(execution),
        )
    error = (execution.error or "")[:ERROR_CHARS]
    return Judged(level=0, error_kind=execution.error_kind, error=error, unscorable=execution.status == "unscorable")


def _reals(candidate: Candidate, execution: Execution, ordered: bool) -> Result | None:
    rows = execution.rows
    if len(rows) * len(execution.columns) > REAL_CELLS or not any(type(v) is float for row in rows for v in row):
        return None
    return Result(rows=rows, ordered=ordered, inexact=is_inexact(candidate.sql, candidate.databases[0]))


def _on_all_instances(
    candidate: Candidate, primary: Judged, matching: Sequence[Gold], others: Sequence[Execution]
) -> Judged:
    """The verdict on a candidate that is right on the primary instance; one gold must match on all of them."""
    lost = next((execution for execution in others if execution.status == "unscorable"), None)
    if lost is not None:
        return _verdict(candidate, lost, False)
    right = any(
        all(gold.accepts(number, other, policy=candidate.policy) for number, other in enumerate(others, start=1))
        for gold in matching
    )
    return replace(primary, level=2 if right else 1)
