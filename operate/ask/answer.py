"""From candidates' texts to an answer: extraction, execution, voting. No engine."""

from collections.abc import Sequence
from dataclasses import dataclass

from conf.errors import QuorumError
from conf.schema.data import Denotation
from conf.schema.reward import PRESENT, RewardConfig
from rewards.carriers import Execution
from rewards.components.format import extract
from rewards.sql.executor import ExecutorPool
from rewards.sql.query import Query
from rollout.carriers import Completion
from selection.candidate import Context, executed_candidates
from selection.voters import VOTERS


class NoAnswer(QuorumError):
    """No candidate ran; the message holds what the commonest one said."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    sql: str
    execution: Execution
    agreeing: int
    """Candidates with the same result."""
    ran: int
    """Candidates that ran at all."""
    asked: int


def choose(
    completions: Sequence[Completion],
    *,
    database: str,
    question: str,
    voter: str,
    denotation: Denotation,
    reward: RewardConfig,
    executors: ExecutorPool,
    opened: str = "",
) -> Answer:
    """The voted answer. `opened`: what the prompt has written of it (Prompt.opened). Raises NoAnswer."""
    sqls = [extract(opened + completion.text, reward.format).sql or "" for completion in completions]
    written = list(dict.fromkeys(sql for sql in sqls if sql))
    if not written:
        raise NoAnswer(f"none of {len(sqls)} candidates holds a query; the first said: {completions[0].text[:200]!r}")
    # The present, and one for all candidates: a question about today is not about the day that rewards take for it.
    budget = reward.execution.budget.model_copy(update={"clock": PRESENT})
    queries = [Query(database=database, sql=sql, budget=budget) for sql in written]
    results = dict(zip(written, executors.run(queries), strict=True))
    candidates = executed_candidates(
        sqls, results, denotation=denotation, database=database, logprobs=[one.logprob for one in completions]
    )
    ran = [candidate for candidate in candidates if not candidate.failed]
    if not ran:
        first = results[written[0]]
        raise NoAnswer(f"none of {len(sqls)} candidates ran; {written[0]!r} failed: {first.error}")
    rows = {one.index: results[one.sql].rows for one in ran}
    winner = candidates[VOTERS[voter](candidates, Context(question=question, rows=rows))]
    return Answer(
        sql=winner.sql,
        execution=results[winner.sql],
        agreeing=sum(one.digest == winner.digest for one in ran),
        ran=len(ran),
        asked=len(candidates),
    )
