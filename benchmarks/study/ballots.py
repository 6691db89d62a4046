"""Executes candidate files: from sampled queries to ballots, which hold what voters need and which candidates are
right.

Right is what training calls right (what the gold accepts, on every instance asked for). The official
scores are the benchmarks' business and differ on a few questions.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.study.candidates import Sampled
from conf.schema.selection import CandidateFile
from rewards.components.atomic import AtomicComparer
from rewards.sql.executor import ExecutorPool
from rewards.sql.gold import GoldRequest, GoldStore
from rewards.sql.gold_answer import Gold
from rewards.sql.query import Query
from rewards.sql.results import Results
from rewards.sql.schema import read_schema
from selection.candidate import Candidate, Context, executed_candidates, instance_digests
from selection.soft_vote import ROWS_COMPARED

BLOCK = 64
"""Questions executed together."""

Known = Results[tuple[str, str]]


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
        store = GoldStore(pool, config.execution.budget)
        for start in range(0, len(sampled), BLOCK):
            block = sampled[start : start + BLOCK]
            known = _execute(block, pool, config)
            golds = (gold for chunk in store.chunks([_request(one) for one in block]) for (gold,) in chunk)
            for one, gold in zip(block, golds, strict=True):
                primary = one.task.databases[0]
                asked = ((database, sql) for database in one.task.databases for sql in one.candidates)
                if not gold.usable or any(known[call].lost for call in asked):
                    continue
                if primary not in comparers:
                    comparers[primary] = AtomicComparer(read_schema(primary))
                yield _ballot(one, gold, known, comparers[primary])


def _request(one: Sampled) -> GoldRequest:
    """The gold that decides: the question's first."""
    return GoldRequest(sqls=one.task.gold_sqls[:1], databases=one.task.databases, policy=one.task.denotation)


def _execute(block: Sequence[Sampled], pool: ExecutorPool, config: CandidateFile) -> Known:
    calls = dict.fromkeys((database, sql) for one in block for sql in one.candidates for database in one.task.databases)
    budget = config.execution.budget
    queries = [Query(database=database, sql=sql, budget=budget) for database, sql in calls]
    known = Known()
    keys = list(calls)
    pool.each(queries, lambda index, execution: known.put(keys[index], execution))
    return known


def _ballot(one: Sampled, gold: Gold, known: Known, comparer: AtomicComparer) -> Ballot:
    task = one.task
    primary, *further = ((file, {sql: known[file, sql] for sql in one.candidates}) for file in task.databases)
    candidates = executed_candidates(
        one.candidates, primary[1], denotation=task.denotation, database=primary[0], logprobs=one.logprobs
    )
    right = {sql for sql in primary[1] if _right(sql, gold, one, known)}
    context = Context(
        question=task.question,
        evidence=task.evidence,
        rows={c.index: primary[1][c.sql].rows[:ROWS_COMPARED] for c in candidates if not c.failed},
        correct=frozenset(c.index for c in candidates if c.sql in right),
        similarity=lambda left, right: comparer.similarity(left, right).similarity,
        instance_digests=instance_digests(candidates, further, denotation=task.denotation),
    )
    return Ballot(db_id=task.db_id, question=task.question, candidates=candidates, context=context)


def _right(sql: str, gold: Gold, one: Sampled, known: Known) -> bool:
    return all(
        gold.accepts(instance, known[database, sql], policy=one.task.denotation)
        for instance, database in enumerate(one.task.databases)
    )
