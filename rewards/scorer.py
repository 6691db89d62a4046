"""Scores the completions of one task: extract, execute and compare, align, combine.

Guarantees: the score of a completion depends neither on its group nor on the order of the batch; what cannot be
known is `unscorable`, never a number, and says whose doing that is: the data's, the policy's or the infrastructure's.
Synchronous, single-threaded, without Ray.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from conf.schema.reward import RewardConfig
from rewards.carriers import Cause, RewardResult, SqlTask
from rewards.combine import RIGHT, Combiner, Components
from rewards.components.execution import Judged, agreed_digests
from rewards.components.format import extract, format_fault, format_reward
from rewards.components.memory import MemoryComponent
from rewards.components.penalties import Facts, penalties, penalty_weights
from rewards.gold_check import GoldCheck
from rewards.memory_store import VerifiedTrace
from rewards.sql.executor import ExecutorPool
from rewards.sql.parse import MAX_COMPLETION_CHARS, Extraction
from rewards.verdicts import Inquiry, Verdict, Verdicts

ORDER_FLAG = "gold_order_dependent"
UNKNOWN_FLAG = "gold_order_unknown"
TOKEN_FLAG = "atomic_token_fallback"
FAILED_GOLD_FLAG = "gold_failed"
CONSTANT_FLAG = "constant_answer"
FORMAT_FLAG = "format_gate"
"""The completion holds SQL and its form alone makes its total 0."""
NO_ANSWER = Judged(level=0, error_kind="not_a_query", error="the completion holds no SQL")
TOO_LONG = Judged(
    level=0, error_kind="too_large", error=f"the completion has more than {MAX_COMPLETION_CHARS} characters"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreJob:
    """One task with the completions to score."""

    task: SqlTask
    completions: Sequence[str]
    """Each with what its prompt has opened before it (Group.answers in rollout/carriers.py)."""
    lengths: Sequence[float] | None = None
    """Share of the token budget that each completion used, in [0, 1]; used by reward.penalties.length."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScorerStats:
    tasks: int
    completions: int
    unscorable: int
    """Completions without a reward, whoever is to blame."""
    cache_entries: int
    cache_hits: int
    cache_misses: int
    executor_restarts: int
    memory_traces: int
    unscorable_data: int = 0
    unscorable_policy: int = 0
    """Those of `unscorable` that the data and the policy caused."""


class Scorer:
    """One scorer owns its caches and its memory; it borrows the executors of `pool`."""

    def __init__(self, config: RewardConfig, pool: ExecutorPool, memory: MemoryComponent | None = None) -> None:
        self._config = config
        self._pool = pool
        self._memory = memory if config.memory.enabled else None
        self._combiner = Combiner(config)
        self._penalties = penalty_weights(config.penalties)
        self._no_overlap = 0.0 if config.atomic.enabled else None
        """The atomic value of a completion without SQL."""
        self._verdicts = Verdicts(config, pool)
        self._tasks = self._completions = 0
        self._unscorable: Counter[Cause] = Counter()

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

    def held(self, traces: Sequence[VerifiedTrace]) -> list[VerifiedTrace]:
        """Those of the traces that the memory holds, in their order."""
        return [] if self._memory is None else self._memory.held(traces)

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
            unscorable=self._unscorable.total(),
            cache_entries=len(self._verdicts.cache),
            cache_hits=self._verdicts.cache.hits,
            cache_misses=self._verdicts.cache.misses,
            executor_restarts=self._pool.restarts,
            memory_traces=0 if self._memory is None else len(self._memory),
            unscorable_data=self._unscorable["data"],
            unscorable_policy=self._unscorable["policy"],
        )

    def _results(self, job: ScoreJob, extractions: Sequence[Extraction], inquiry: Inquiry) -> tuple[RewardResult, ...]:
        count = len(extractions)
        self._tasks += 1
        self._completions += count
        check = inquiry.check
        assert check is not None, "inquire has executed the golds"
        if not check.usable:
            cause: Cause = "infrastructure" if check.infrastructure else "data"
            return tuple(self._unscored(extraction, check.reason, cause) for extraction in extractions)
        verdicts = [inquiry.of(e.sql) if e.sql is not None else None for e in extractions]
        alignments: Sequence[float | None] = [None] * count
        if self._memory is not None:
            right = [_right(verdict) for verdict in verdicts]
            runs = [verdict is not None and verdict.judged.level > 0 for verdict in verdicts]
            alignments = self._memory.score(job.task, [e.reasoning for e in extractions], right, runs=runs)
        flags = (ORDER_FLAG,) * check.order_dependent + (UNKNOWN_FLAG,) * check.order_unknown
        flags += (FAILED_GOLD_FLAG,) * inquiry.lost_golds
        lengths = job.lengths if job.lengths is not None else [0.0] * count
        facts = [
            Facts(task=job.task, extraction=e, judged=_unasked(e) if verdict is None else verdict.judged, length=length)
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
            return self._unscored(extraction, judged.error, "policy" if judged.own_doing else "infrastructure")
        if verdict is not None:
            flags += (TOKEN_FLAG,) * verdict.token_fallback + (CONSTANT_FLAG,) * verdict.constant
        level = 1 if verdict is not None and verdict.constant else judged.level
        values = Components(
            format=format_reward(extraction, self._config.format) if facts.task.format_asked else None,
            execution=level,
            atomic=self._no_overlap if verdict is None else verdict.atomic,
            memory=alignment,
            penalties=penalties(facts, self._penalties),
        )
        components = _reported(values, self._config, executed=judged.level)
        gated = self._combiner.gated(values) and extraction.sql is not None
        form = format_fault(extraction, self._config.format) if gated else None
        if not self._config.format.thinking and not judged.level:
            form = extraction.fault
        return RewardResult(
            status="scored",
            total=self._combiner.total(values),
            components=components,
            sql=extraction.sql,
            correct=level == RIGHT,
            result_digest=digest,
            result_trivial=judged.trivial,
            error=judged.error,
            error_kind=judged.error_kind,
            flags=flags + (FORMAT_FLAG,) * gated,
            form=form,
        )

    def _unscored(self, extraction: Extraction, reason: str | None, cause: Cause) -> RewardResult:
        self._unscorable[cause] += 1
        point = format_reward(extraction, self._config.format) if self._config.format.enabled else None
        components = {"format": point, "execution": None, "atomic": None, "memory": None}
        return RewardResult(
            status="unscorable", total=None, components=components, sql=extraction.sql, error=reason, cause=cause
        )


def _unasked(extraction: Extraction) -> Judged:
    """Of a completion without SQL."""
    return TOO_LONG if extraction.too_long else NO_ANSWER


def _right(verdict: Verdict | None) -> bool | None:
    """Of a completion; None where the infrastructure lost its query."""
    if verdict is None:
        return False
    return None if verdict.judged.unscorable else verdict.judged.level == RIGHT and not verdict.constant


def _reported(values: Components, config: RewardConfig, *, executed: int) -> dict[str, float | None]:
    """Raw values by name; None for a component that is switched off. `executed`: what execution showed, which is paid
    less where the answer is a constant."""
    return {
        "format": values.format if config.format.enabled else None,
        "execution": float(executed) if config.execution.enabled else None,
        "atomic": values.atomic,
        "memory": values.memory,
        **values.penalties,
    }
