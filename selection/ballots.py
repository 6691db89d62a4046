"""Executes candidate files: from sampled queries to ballots, which hold what voters need and which candidates are
right.

Right is what training calls right (rewards/sql/denotation against the gold, on every instance asked for). The official
scores are the benchmarks' business and differ on a few questions.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from conf.schema.selection import CandidateFile
from rewards.carriers import Execution
from rewards.components.atomic import AtomicComparer
from rewards.sql.denotation import digest, equal, is_trivial
from rewards.sql.executor import ExecutorPool, Query
from rewards.sql.parse import has_top_level_order_by
from rewards.sql.schema import read_schema
from selection.candidate import Candidate, Context
from selection.questions import Sampled
from selection.soft_vote import ROWS_COMPARED

BLOCK = 64
"""Questions executed together."""

Known = Mapping[tuple[str, str], Execution]


@dataclass(frozen=True, kw_only=True, slots=True)
class Ballot:
    """One question ready to be voted on."""

    db_id: str
    question: str
    candidates: tuple[Candidate, ...]
    context: Context
    """With `correct`: only the oracle may look at it."""

    @property
    def right(self) -> frozenset[int]:
        """Indices of right candidates."""
        return self.context.correct or frozenset()


def ballots(sampled: Sequence[Sampled], config: CandidateFile) -> Iterator[Ballot]:
    """One ballot a question; left out are those whose gold does not run, and those that lost a candidate to the
    infrastructure."""
    comparers: dict[str, AtomicComparer] = {}
    with ExecutorPool(config.execution.executors or os.cpu_count() or 1) as pool:
        for start in range(0, len(sampled), BLOCK):
            block = sampled[start : start + BLOCK]
            known = _execute(block, pool, config)
            for one in block:
                primary = one.task.databases[0]
                golds = [known[database, one.task.gold_sqls[0]] for database in one.task.databases]
                asked = [known[database, sql] for database in one.task.databases for sql in one.candidates]
                if any(gold.status != "ok" for gold in golds) or any(run.lost for run in asked):
                    continue
                if primary not in comparers:
                    comparers[primary] = AtomicComparer(read_schema(primary))
                yield _ballot(one, known, comparers[primary])


def _execute(block: Sequence[Sampled], pool: ExecutorPool, config: CandidateFile) -> Known:
    calls = dict.fromkeys(
        (database, sql)
        for one in block
        for sql in (one.task.gold_sqls[0], *one.candidates)
        for database in one.task.databases
    )
    budget = config.execution.budget
    queries = [Query(database=database, sql=sql, budget=budget) for database, sql in calls]
    return dict(zip(calls, pool.run(queries), strict=True))


def _ballot(one: Sampled, known: Known, comparer: AtomicComparer) -> Ballot:
    task = one.task
    digests = {sql: _digests(sql, one, known) for sql in set(one.candidates)}
    candidates = tuple(
        Candidate(
            index=index,
            sql=sql,
            digest=digests[sql][0],
            trivial=digests[sql][0] is not None and is_trivial(known[task.databases[0], sql]),
            failed=digests[sql][0] is None,
            logprob=one.logprobs[index] if one.logprobs else None,
        )
        for index, sql in enumerate(one.candidates)
    )
    right = {sql for sql in digests if _right(sql, one, known)}
    context = Context(
        question=task.question,
        evidence=task.evidence,
        rows={c.index: known[task.databases[0], c.sql].rows[:ROWS_COMPARED] for c in candidates if not c.failed},
        correct=frozenset(c.index for c in candidates if c.sql in right),
        similarity=lambda left, right: comparer.similarity(left, right).similarity,
        instance_digests={c.index: digests[c.sql][1] for c in candidates},
    )
    return Ballot(db_id=task.db_id, question=task.question, candidates=candidates, context=context)


def _digests(sql: str, one: Sampled, known: Known) -> tuple[str | None, str]:
    """Digest on the primary instance (None when the query did not run there), and one for all instances together."""
    ordered = has_top_level_order_by(sql)
    each = [
        digest(execution, policy=one.task.denotation, ordered=ordered) if execution.status == "ok" else "failed"
        for execution in (known[database, sql] for database in one.task.databases)
    ]
    together = blake2b("\n".join(each).encode(), digest_size=32).hexdigest()
    return (None if each[0] == "failed" else each[0]), together


def _right(sql: str, one: Sampled, known: Known) -> bool:
    gold = one.task.gold_sqls[0]
    ordered = has_top_level_order_by(gold)
    return all(
        equal(known[database, gold], known[database, sql], policy=one.task.denotation, ordered=ordered)
        for database in one.task.databases
    )
