"""Scores the completions of one task: extract, deduplicate, execute, compare, combine.

Guarantees: equal candidates of a group are executed and compared once; verdicts are cached by (database contents,
golds, candidate, policy), bounded; the score of a completion depends neither on its group nor on the order of the
batch; what the infrastructure did is `unscorable`, never a number. Synchronous, single-threaded, without Ray.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import blake2b

from conf.schema.reward import RewardConfig
from rewards.carriers import RewardResult, SqlTask
from rewards.combine import RIGHT, Combiner, Components, repeated_share
from rewards.components.atomic import AtomicComparer
from rewards.components.execution import Candidate, ExecutionJudge, Judged
from rewards.components.format import extract, format_reward
from rewards.components.memory import MemoryComponent
from rewards.memory_store import VerifiedTrace
from rewards.sql.cache import BoundedCache
from rewards.sql.content import content_key
from rewards.sql.executor import ExecutorPool
from rewards.sql.gold import Gold, GoldRequest, GoldStore, reads_clock
from rewards.sql.parse import Extraction, canonical
from rewards.sql.schema import read_schema

ORDER_FLAG = "gold_order_dependent"
TOKEN_FLAG = "atomic_token_fallback"
FAILED_GOLD_FLAG = "gold_failed"
NO_ANSWER = Judged(level=0, error_kind="not_a_query", error="the completion holds no SQL")


@dataclass(frozen=True, kw_only=True, slots=True)
class GoldCheck:
    """Whether a task can be scored."""

    usable: bool
    reason: str | None = None
    order_dependent: bool = False
    infrastructure: bool = False
    """Not usable through no fault of the gold: worth another try."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Verdict:
    """What is cached of one candidate query of a task."""

    judged: Judged
    atomic: float | None
    token_fallback: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreJob:
    """One task with the completions to score."""

    task: SqlTask
    completions: Sequence[str]
    lengths: Sequence[float] | None = None
    """Share of the token budget that each completion used, in [0, 1]; used by reward.penalties.length."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Case:
    """A job on its way through a batch."""

    job: ScoreJob
    extractions: list[Extraction]
    check: GoldCheck
    golds: list[Gold]
    keys: dict[str, bytes] = field(default_factory=dict)
    """Cache key by SQL text."""
    verdicts: dict[bytes, _Verdict] = field(default_factory=dict)


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
        self._golds = GoldStore(pool, config.execution.budget)
        strict_empty = config.empty_needs_empty_everywhere
        self._judge = ExecutionJudge(pool, config.execution, empty_needs_empty_everywhere=strict_empty)
        self._needs_instances = strict_empty or config.execution.instances == "all"
        self._verdicts: BoundedCache[bytes, _Verdict] = BoundedCache(config.server.cache_entries)
        self._comparers: BoundedCache[str, AtomicComparer] = BoundedCache(256)
        self._waiting = ThreadPoolExecutor(1, thread_name_prefix="quorum-scorer")
        self._tasks = self._completions = self._unscorable = 0

    def score(
        self, task: SqlTask, completions: Sequence[str], *, lengths: Sequence[float] | None = None
    ) -> tuple[RewardResult, ...]:
        """One result a completion, in order. See ScoreJob for the arguments."""
        return self.score_batch([ScoreJob(task=task, completions=completions, lengths=lengths)])[0]

    def score_batch(self, jobs: Sequence[ScoreJob]) -> list[tuple[RewardResult, ...]]:
        """Results of several groups whose candidates are executed together."""
        cases = self._cases(jobs)
        self._judge_candidates(cases)
        return [self._results(case) for case in cases]

    def check_gold(self, task: SqlTask) -> GoldCheck:
        """Whether a gold of the task runs within its budget, on every instance that would decide."""
        return self._usable_golds([task])[0][0]

    def commit(self) -> None:
        """End of a batch: the traces verified since the last commit enter the memory."""
        self.remember(self.take_verified())

    def take_verified(self) -> list[VerifiedTrace]:
        """Traces verified since the last call; the memory does not hold them yet."""
        return [] if self._memory is None else self._memory.take_verified()

    def remember(self, traces: Sequence[VerifiedTrace]) -> int:
        """Adds verified traces to the memory; the number that it holds afterwards."""
        return 0 if self._memory is None else self._memory.remember(traces)

    def save(self, path: str) -> None:
        """Writes the memory to a file; nothing where the component is off."""
        if self._memory is not None:
            self._memory.save(path)

    def load(self, path: str) -> None:
        """Replaces the memory by a file's."""
        if self._memory is not None:
            self._memory.load(path)

    def stats(self) -> ScorerStats:
        """Counters since the start."""
        return ScorerStats(
            tasks=self._tasks,
            completions=self._completions,
            unscorable=self._unscorable,
            cache_entries=len(self._verdicts),
            cache_hits=self._verdicts.hits,
            cache_misses=self._verdicts.misses,
            executor_restarts=self._pool.restarts,
            memory_traces=0 if self._memory is None else len(self._memory),
        )

    def _databases(self, task: SqlTask) -> tuple[str, ...]:
        return task.databases if self._needs_instances else task.databases[:1]

    def _cases(self, jobs: Sequence[ScoreJob]) -> list[_Case]:
        cases = []
        for job, (check, golds) in zip(jobs, self._usable_golds([job.task for job in jobs]), strict=True):
            extractions = [extract(completion, self._config.format) for completion in job.completions]
            cases.append(_Case(job=job, extractions=extractions, check=check, golds=golds))
            self._completions += len(extractions)
        self._tasks += len(jobs)
        return cases

    def _usable_golds(self, tasks: Sequence[SqlTask]) -> list[tuple[GoldCheck, list[Gold]]]:
        requests = [
            GoldRequest(sqls=task.gold_sqls, databases=self._databases(task), policy=task.denotation) for task in tasks
        ]
        return [self._checked(golds) for golds in self._golds.many(requests)]

    def _checked(self, golds: Sequence[Gold]) -> tuple[GoldCheck, list[Gold]]:
        """Which golds count, and whether any does."""
        running = [gold for gold in golds if gold.usable]
        if not running:
            lost = any(gold.infrastructure for gold in golds)
            return GoldCheck(usable=False, reason=f"gold: {golds[0].reason}", infrastructure=lost), []
        steady = [gold for gold in running if not gold.order_dependent]
        if self._config.execution.order_dependent_gold == "unscorable":
            if not steady:
                reason = "gold: its rows depend on scan order"
                return GoldCheck(usable=False, reason=reason, order_dependent=True), []
            return GoldCheck(usable=True), steady
        return GoldCheck(usable=True, order_dependent=len(steady) < len(running)), running

    def _judge_candidates(self, cases: Sequence[_Case]) -> None:
        """Fills in the verdicts; candidates of a task with one canonical form are executed once."""
        new: dict[bytes, tuple[_Case, str]] = {}
        for case in cases:
            if not case.check.usable:
                continue
            stem = self._stem(case)
            for sql in dict.fromkeys(e.sql for e in case.extractions if e.sql is not None):
                key = blake2b(stem + canonical(sql).encode("utf-8", "surrogatepass"), digest_size=20).digest()
                case.keys[sql] = key
                known = self._verdicts.get(key)
                if known is not None:
                    case.verdicts[key] = known
                else:
                    new.setdefault(key, (case, sql))
        fresh = dict(zip(new, self._fresh_verdicts(list(new.values())), strict=True))
        for key, verdict in fresh.items():
            if not verdict.judged.unscorable and not reads_clock(new[key][1]):
                self._verdicts.put(key, verdict)
        for case in cases:
            case.verdicts.update({key: fresh[key] for key in case.keys.values() if key in fresh})

    def _fresh_verdicts(self, new: Sequence[tuple[_Case, str]]) -> list[_Verdict]:
        if not new:
            return []
        candidates = [
            Candidate(
                sql=sql,
                golds=case.golds,
                databases=self._databases(case.job.task),
                policy=case.job.task.denotation,
            )
            for case, sql in new
        ]
        # The thread only waits for the executors; meanwhile this one compares.
        executed = self._waiting.submit(self._judge.judge, candidates)
        overlaps = [self._overlap(sql, case) for case, sql in new]
        judged = executed.result()
        return [
            _Verdict(judged=verdict, atomic=similarity, token_fallback=fallback)
            for verdict, (similarity, fallback) in zip(judged, overlaps, strict=True)
        ]

    def _stem(self, case: _Case) -> bytes:
        """What a verdict depends on beside the candidate."""
        contents = [content_key(path) for path in self._databases(case.job.task)]
        parts = "\0".join((*contents, case.job.task.denotation, *(gold.sql for gold in case.golds)))
        return blake2b(parts.encode("utf-8", "surrogatepass"), digest_size=32).digest()

    def _overlap(self, sql: str, case: _Case) -> tuple[float | None, bool]:
        """Best atomic similarity to a gold, and whether it is that of tokens."""
        if not self._config.atomic.enabled:
            return None, False
        comparer = self._comparer(case.job.task.databases[0])
        best = max((comparer.similarity(gold.sql, sql) for gold in case.golds), key=lambda score: score.similarity)
        return best.similarity, best.token_fallback

    def _comparer(self, database: str) -> AtomicComparer:
        key = content_key(database)
        comparer = self._comparers.get(key)
        if comparer is None:
            comparer = AtomicComparer(read_schema(database))
            self._comparers.put(key, comparer)
        return comparer

    def _results(self, case: _Case) -> tuple[RewardResult, ...]:
        count = len(case.extractions)
        if not case.check.usable:
            self._unscorable += count
            return tuple(self._unscored(extraction, case.check.reason) for extraction in case.extractions)
        verdicts = [case.verdicts[case.keys[e.sql]] if e.sql is not None else None for e in case.extractions]
        alignments: Sequence[float | None] = [None] * count
        if self._memory is not None:
            right = [verdict is not None and verdict.judged.level == RIGHT for verdict in verdicts]
            alignments = self._memory.score(case.job.task, [e.reasoning for e in case.extractions], right)
        lost_golds = len(case.golds) < len(case.job.task.gold_sqls)
        flags = (ORDER_FLAG,) * case.check.order_dependent + (FAILED_GOLD_FLAG,) * lost_golds
        lengths = case.job.lengths if case.job.lengths is not None else [0.0] * count
        rows = zip(case.extractions, verdicts, alignments, lengths, strict=True)
        return tuple(self._result(e, verdict, a, length, flags) for e, verdict, a, length in rows)

    def _result(
        self,
        extraction: Extraction,
        verdict: _Verdict | None,
        alignment: float | None,
        length: float,
        flags: tuple[str, ...],
    ) -> RewardResult:
        judged = NO_ANSWER if verdict is None else verdict.judged
        if judged.unscorable:
            self._unscorable += 1
            return self._unscored(extraction, judged.error)
        values = Components(
            format=format_reward(extraction, self._config.format),
            execution=judged.level,
            atomic=None if verdict is None else verdict.atomic,
            memory=alignment,
            length=length,
            repetition=repeated_share(extraction.reasoning) if self._config.penalties.repetition else 0.0,
        )
        components = _reported(values, self._config)
        return RewardResult(
            status="scored",
            total=self._combiner.total(values),
            components=components,
            sql=extraction.sql,
            correct=judged.level == RIGHT,
            result_digest=judged.digest,
            result_trivial=judged.trivial,
            error=judged.error,
            error_kind=judged.error_kind,
            flags=flags + ((TOKEN_FLAG,) if verdict is not None and verdict.token_fallback else ()),
        )

    def _unscored(self, extraction: Extraction, reason: str | None) -> RewardResult:
        point = format_reward(extraction, self._config.format) if self._config.format.enabled else None
        components = {"format": point, "execution": None, "atomic": None, "memory": None}
        return RewardResult(status="unscorable", total=None, components=components, sql=extraction.sql, error=reason)


def _reported(values: Components, config: RewardConfig) -> dict[str, float | None]:
    """Raw values by name; None for a component that is switched off."""
    return {
        "format": values.format if config.format.enabled else None,
        "execution": float(values.execution) if config.execution.enabled else None,
        "atomic": values.atomic,
        "memory": values.memory,
    }
