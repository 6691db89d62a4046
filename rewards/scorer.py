"""Scores the completions of one task: extract, execute and compare, align, combine.

Guarantees: the score of a completion depends neither on its group nor on the order of the batch; what the
infrastructure did is `unscorable`, never a number. Synchronous, single-threaded, without Ray.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from conf.schema.reward import RewardConfig
from rewards.carriers import RewardResult, SqlTask
from rewards.combine import RIGHT, Combiner, Components
from rewards.components.execution import Judged, agreed_digests
from rewards.components.format import extract, format_reward
from rewards.components.memory import MemoryComponent
from rewards.components.penalties import Facts, penalties, penalty_weights
from rewards.memory_store import VerifiedTrace
from rewards.sql.executor import ExecutorPool
from rewards.sql.parse import Extraction
from rewards.verdicts import GoldCheck, Inquiry, Verdict, Verdicts

ORDER_FLAG = "gold_order_dependent"
UNKNOWN_FLAG = "gold_order_unknown"
TOKEN_FLAG = "atomic_token_fallback"
FAILED_GOLD_FLAG = "gold_failed"
NO_ANSWER = Judged(level=0, error_kind="not_a_query", error="the completion holds no SQL")


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreJob:
    """One task with the completions to score."""

    task: SqlTask
    completions: Sequence[str]
    lengths: Sequence[float] | None = None
    """Share of the token budget that each completion used, in [0, 1]; used by reward.penalties.length."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScorerStats:
    tasks: int
    completions: int
    unscorable: int
    cache_entries: int
    cache_hits: int
    cache_misses: int
    executor_restarts: int
    memory_traces: int


class Scorer:
    """One scorer owns its caches and its memory; it borrows the executors of `pool`."""

    def __init__(self, config: RewardConfig, pool: ExecutorPool, memory: MemoryComponent | None = None) -> None:
        self._config = config
        self._pool = pool
        self._memory = memory if config.memory.enabled else None
        self._combiner = Combiner(config)
        self._penalties = penalty_weights(config.penalties)
        self._verdicts = Verdicts(config, pool)
        self._tasks = self._completions = self._unscorable = 0

    def score(
        self, task: SqlTask, completions: Sequence[str], *, lengths: Sequence[float] | None = None
    ) -> tuple[RewardResult, ...]:
        """One result a completion, in order. See ScoreJob for the arguments."""
        return self.score_batch([ScoreJob(task=task, completions=completions, lengths=lengths)])[0]

    def score_batch(self, jobs: Sequence[ScoreJob]) -> list[tuple[RewardResult, ...]]:
        """Results of several groups whose candidates are executed together."""
        extracted = [[extract(text, self._config.format) for text in job.completions] for job in jobs]
        asked = [
            (job.task, [e.sql for e in extractions if e.sql is not None])
            for job, extractions in zip(jobs, extracted, strict=True)
        ]
        inquiries = self._verdicts.inquire(asked)
        return [self._results(*parts) for parts in zip(jobs, extracted, inquiries, strict=True)]

    def progress(self) -> int:
        """Grows with whatever gets done inside a call, for those who watch from another thread."""
        return self._pool.events + self._verdicts.compared + self._tasks

    def check_gold(self, task: SqlTask) -> GoldCheck:
        """Whether a gold of the task runs within its budget, on every instance that would decide."""
        return self._verdicts.check(task)

    def commit(self) -> None:
        """End of a batch: the traces verified since the last commit enter the memory."""
        self.remember(self.take_verified())

    def take_verified(self) -> list[VerifiedTrace]:
        """Traces verified since the last call; the memory does not hold them yet."""
        return [] if self._memory is None else self._memory.take_verified()

    def remember(self, traces: Sequence[VerifiedTrace]) -> int:
        """Adds verified traces to the memory; the number that it holds afterwards."""
        return 0 if self._memory is None else self._memory.remember(traces)

    def save(self, path: str) -> bool:
        """Writes the memory to a file; False, and no file, where the component is off."""
        if self._memory is None:
            return False
        self._memory.save(path)
        return True

    def load(self, path: str) -> None:
        """Replaces the memory by a file's; nothing where the component is off."""
        if self._memory is not None:
            self._memory.load(path)

    def stats(self) -> ScorerStats:
        """Counters since the start."""
        return ScorerStats(
            tasks=self._tasks,
            completions=self._completions,
            unscorable=self._unscorable,
            cache_entries=len(self._verdicts.cache),
            cache_hits=self._verdicts.cache.hits,
            cache_misses=self._verdicts.cache.misses,
            executor_restarts=self._pool.restarts,
            memory_traces=0 if self._memory is None else len(self._memory),
        )

    def _results(self, job: ScoreJob, extractions: Sequence[Extraction], inquiry: Inquiry) -> tuple[RewardResult, ...]:
        count = len(extractions)
        self._tasks += 1
        self._completions += count
        check = inquiry.check
        assert check is not None, "inquire has executed the golds"
        if not check.usable:
            self._unscorable += count
            return tuple(self._unscored(extraction, check.reason) for extraction in extractions)
        verdicts = [inquiry.of(e.sql) if e.sql is not None else None for e in extractions]
        alignments: Sequence[float | None] = [None] * count
        if self._memory is not None:
            right = [_right(verdict) for verdict in verdicts]
            alignments = self._memory.score(job.task, [e.reasoning for e in extractions], right)
        flags = (ORDER_FLAG,) * check.order_dependent + (UNKNOWN_FLAG,) * check.order_unknown
        flags += (FAILED_GOLD_FLAG,) * inquiry.lost_golds
        lengths = job.lengths if job.lengths is not None else [0.0] * count
        facts = [
            Facts(task=job.task, extraction=e, judged=NO_ANSWER if verdict is None else verdict.judged, length=length)
            for e, verdict, length in zip(extractions, verdicts, lengths, strict=True)
        ]
        digests = agreed_digests([one.judged for one in facts], job.task.denotation)
        parts = zip(facts, verdicts, alignments, digests, strict=True)
        return tuple(self._result(*one, flags) for one in parts)

    def _result(
        self,
        facts: Facts,
        verdict: Verdict | None,
        alignment: float | None,
        digest: str | None,
        flags: tuple[str, ...],
    ) -> RewardResult:
        extraction, judged = facts.extraction, facts.judged
        if judged.unscorable:
            self._unscorable += 1
            return self._unscored(extraction, judged.error)
        values = Components(
            format=format_reward(extraction, self._config.format),
            execution=judged.level,
            atomic=None if verdict is None else verdict.atomic,
            memory=alignment,
            penalties=penalties(facts, self._penalties),
        )
        components = _reported(values, self._config)
        return RewardResult(
            status="scored",
            total=self._combiner.total(values),
            components=components,
            sql=extraction.sql,
            correct=judged.level == RIGHT,
            result_digest=digest,
            result_trivial=judged.trivial,
            error=judged.error,
            error_kind=judged.error_kind,
            flags=flags + ((TOKEN_FLAG,) if verdict is not None and verdict.token_fallback else ()),
        )

    def _unscored(self, extraction: Extraction, reason: str | None) -> RewardResult:
        point = format_reward(extraction, self._config.format) if self._config.format.enabled else None
        components = {"format": point, "execution": None, "atomic": None, "memory": None}
        return RewardResult(status="unscorable", total=None, components=components, sql=extraction.sql, error=reason)


def _right(verdict: Verdict | None) -> bool | None:
    """Of a completion; None where the infrastructure lost its query."""
    if verdict is None:
        return False
    return None if verdict.judged.unscorable else verdict.judged.level == RIGHT


def _reported(values: Components, config: RewardConfig) -> dict[str, float | None]:
    """Raw values by name; None for a component that is switched off."""
    return {
        "format": values.format if config.format.enabled else None,
        "execution": float(values.execution) if config.execution.enabled else None,
        "atomic": values.atomic,
        "memory": values.memory,
        **values.penalties,
    }
