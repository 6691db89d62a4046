"""What a voter sees: executed candidates of one question, and what else is known about the question.

`executed_candidates` is the one way from executions to candidates: results are grouped by each query's own ORDER BY,
never by a gold's.

A voter is `select(candidates, context) -> int`: it returns the `index` of the candidate to answer with. Voters do not
depend on the order in which candidates are listed; every tie is broken by `preference`, which looks only at the
candidate itself. That needs log-probabilities that can be compared: a candidate takes none but finite ones.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from conf.schema.data import Denotation
from rewards.carriers import Execution, Value
from rewards.sql.agreement import agreeing
from rewards.sql.denotation import is_trivial

LEAST_LOGPROB, GREATEST_LOGPROB = -1e9, 0.01
"""Nats. No model samples a less likely sequence, and sums and squares of such numbers keep their order; a sum of many
tokens' logarithms may exceed 0 by rounding."""


class NoCandidates(ValueError):
    """A voter was given nothing to choose from, or lacks an input that it cannot do without."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One candidate query after execution on the primary database instance."""

    index: int
    """Position in sampling order; what a voter returns."""
    sql: str
    digest: str | None
    """Full-length digest of the result under the task's denotation; results that differ in the last bits of sums alone
    have the same. None when the query did not run."""
    trivial: bool = False
    """The result is empty, or holds nothing but zeros and NULLs."""
    failed: bool = False
    """The query did not run: an error, a refused statement, a budget."""
    logprob: float | None = None
    """Natural-log probability of the whole sampled sequence, `comparable`; None when the source does not report one."""

    def __post_init__(self) -> None:
        if self.logprob is not None and not comparable(self.logprob):
            raise ValueError(f"{self.logprob} is no log-probability: it can be neither compared nor weighed")


def executed_candidates(
    sqls: Sequence[str],
    executions: Mapping[str, Execution],
    *,
    denotation: Denotation,
    database: str | None,
    logprobs: Sequence[float | None] | None = None,
) -> tuple[Candidate, ...]:
    """One candidate a query, in sampling order.

    Args:
        executions: by query, on the primary instance; a query without one has failed (a completion that holds none).
        database: where the queries' views can be looked up (rewards/sql/agreement).
        logprobs: of the whole sampled sequences, natural log; None where the source reports none.
    """
    digests = agreeing({sql: executions[sql] for sql in sqls if sql in executions}, denotation, database=database)
    return tuple(
        Candidate(
            index=index,
            sql=sql,
            digest=digests.get(sql),
            trivial=digests.get(sql) is not None and is_trivial(executions[sql]),
            failed=digests.get(sql) is None,
            logprob=logprobs[index] if logprobs else None,
        )
        for index, sql in enumerate(sqls)
    )


def instance_digests(
    candidates: Sequence[Candidate],
    further: Sequence[tuple[str, Mapping[str, Execution]]],
    *,
    denotation: Denotation,
) -> dict[int, str]:
    """By index one digest of a candidate's results on all instances together.

    `further`: each instance after the primary one, as its database and its executions by query.
    """
    each: list[Mapping[str, str | None]] = [{one.sql: one.digest for one in candidates}]
    sqls = {one.sql for one in candidates}
    each += [
        agreeing({sql: executions[sql] for sql in sqls}, denotation, database=database)
        for database, executions in further
    ]
    return {one.index: "\n".join(digests[one.sql] or "failed" for digests in each) for one in candidates}


def comparable(logprob: float) -> bool:
    """Whether it can be a sequence's log-probability: NaN and infinities cannot."""
    return LEAST_LOGPROB <= logprob <= GREATEST_LOGPROB


def logprobs_fault(values: object, count: int) -> str:
    """What is wrong with what a file gives as the log-probabilities of `count` candidates; '' when nothing is."""
    if not isinstance(values, list) or len(values) != count:
        return f'"logprobs" must hold one number a candidate, {count} in all'
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or not comparable(value):
            return f'"logprobs" must hold finite natural logarithms of probabilities, none above 0; found {value!r:.40}'
    return ""


Rows = Sequence[tuple[Value, ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Context:
    """What some voters need beside the candidates. Everything has a default: most voters need none of it."""

    question: str = ""
    evidence: str = ""
    rows: Mapping[int, Rows] = field(default_factory=dict)
    """Candidate index -> result rows on the primary instance (soft_vote)."""
    correct: frozenset[int] | None = None
    """Indices of right candidates; known to the oracle alone."""
    greedy: int | None = None
    """Index of the greedily decoded candidate, where the source made one."""
    similarity: Callable[[str, str], float] | None = None
    """Atomic similarity of two queries on the question's database, in [0, 1] (reranker)."""
    instance_digests: Mapping[int, str] = field(default_factory=dict)
    """Candidate index -> digest of its results on all database instances together (reranker)."""


NOTHING = Context()


class Voter(Protocol):
    """Chooses the answer's index; raises NoCandidates."""

    def __call__(self, candidates: Sequence[Candidate], context: Context = NOTHING) -> int: ...


def preference(candidate: Candidate) -> tuple[float, int, str, int]:
    """Sort key, smallest first: likelier, then shorter, then alphabetically first SQL; the index only separates equal
    texts.
    """
    logprob = float("-inf") if candidate.logprob is None else candidate.logprob
    return (-logprob, len(candidate.sql), candidate.sql, candidate.index)


def best(candidates: Sequence[Candidate]) -> Candidate:
    """The preferred candidate of a non-empty sequence. Raises NoCandidates."""
    if not candidates:
        raise NoCandidates("there is no candidate to choose from")
    return min(candidates, key=preference)


def executed(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates whose query ran."""
    return [c for c in candidates if not c.failed and c.digest is not None]


def groups_by_result(candidates: Sequence[Candidate]) -> list[list[Candidate]]:
    """Executed candidates grouped by equal result, each group sorted by preference."""
    groups: dict[str, list[Candidate]] = {}
    for candidate in executed(candidates):
        assert candidate.digest is not None
        groups.setdefault(candidate.digest, []).append(candidate)
    return [sorted(group, key=preference) for group in groups.values()]


def largest(groups: Sequence[Sequence[Candidate]]) -> Candidate:
    """The preferred member of the largest group; groups of equal size are ranked by their preferred members."""
    return min(groups, key=lambda group: (-len(group), preference(group[0])))[0]


def telling(groups: list[list[Candidate]]) -> list[list[Candidate]]:
    """The groups whose result is not trivial; all of them when every one is."""
    return [group for group in groups if not group[0].trivial] or groups
