"""What executing and comparing says of the candidates of several tasks: the two run at the same time.

Guarantees: candidates of a task that mean the same to SQLite are executed and compared once; verdicts are cached by
(database contents, golds, candidate, policy), bounded; nothing that the infrastructure lost is cached. However large a
batch is, HELD_BYTES of gold results are held (rewards/sql/gold.py), and of each executor the one that it sends.
Single-threaded towards its caller.
"""

import gc
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b

from conf.schema.reward import RewardConfig
from rewards.carriers import SqlTask
from rewards.components.atomic import AtomicComparer, AtomicScore
from rewards.components.execution import Candidate, ExecutionJudge, Judged
from rewards.gold_check import GoldCheck, checked
from rewards.sql.cache import BoundedCache
from rewards.sql.content import content_key
from rewards.sql.executor import ExecutorPool
from rewards.sql.gold import GoldRequest, GoldStore
from rewards.sql.gold_answer import Gold
from rewards.sql.parse import canonical
from rewards.sql.schema import DatabaseUnreadable, read_schema
from rewards.sql.tables import is_constant

CHECKED_TOGETHER = 64
"""Tasks whose golds are executed in one batch where no candidates are asked for."""
COLLECT_EVERY = 50_000
"""New objects between two looks for garbage during a batch. Syntax trees are cyclic; at Python's own 700 a quarter of a
batch's time went into looking at trees that are still in use."""
COLLECT_ALL_AFTER = 1024
"""Candidates compared between two whole collections, 60 ms or more each: dropped trees that have grown old are
otherwise kept until a quarter of all objects is garbage."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What is known of one candidate query of a task."""

    judged: Judged
    atomic: float | None
    """Best similarity to a usable gold; None with the component off."""
    token_fallback: bool
    """The similarity is that of tokens."""
    constant: bool = False
    """Has a gold's result, and counts as wrong: it says nothing of the database (reward.execution.constant_answer)."""


@dataclass(kw_only=True, slots=True)
class Inquiry:
    """One task with its candidate queries, and what was found out about them."""

    task: SqlTask
    keys: dict[str, bytes] = field(default_factory=dict)
    """Cache key by distinct query."""
    verdicts: dict[bytes, Verdict] = field(default_factory=dict)
    check: GoldCheck | None = None
    """None until the golds have been executed."""
    counted: Sequence[str] = ()
    """The golds that count."""
    passing: bool = False
    """The golds may come out otherwise another time: one was lost."""

    @property
    def usable(self) -> bool:
        """Whether its candidates can be scored."""
        return self.check is not None and self.check.usable

    def of(self, sql: str) -> Verdict:
        """Of one of the queries of a usable task."""
        return self.verdicts[self.keys[sql]]

    @property
    def lost_golds(self) -> bool:
        """Whether some gold does not count."""
        return len(self.counted) < len(self.task.gold_sqls)


Similarities = Mapping[str, AtomicScore]
"""Of one candidate to each gold query."""


class Verdicts:
    """Owns the caches of golds and verdicts; borrows the executors of `pool`."""

    def __init__(self, config: RewardConfig, pool: ExecutorPool) -> None:
        self._config = config
        self._golds = GoldStore(pool, config.execution.budget)
        strict_empty = config.empty_needs_empty_everywhere
        self._judge = ExecutionJudge(pool, config.execution, empty_needs_empty_everywhere=strict_empty)
        self._needs_instances = strict_empty or config.execution.instances == "all"
        self._comparers: BoundedCache[str, AtomicComparer] = BoundedCache(256)
        self._executing = ThreadPoolExecutor(1, thread_name_prefix="quorum-scorer")
        self.cache: BoundedCache[bytes, Verdict] = BoundedCache(config.server.cache_entries)
        self._since_collection = 0
        self.compared = 0
        """Tasks opened and candidates compared so far, also within a batch."""

    def check(self, task: SqlTask) -> GoldCheck:
        """Whether a gold of the task runs within its budget, on every instance that would decide."""
        return self.check_many([task])[0]

    def check_many(self, tasks: Sequence[SqlTask]) -> list[GoldCheck]:
        """`check` of several tasks, some of them at a time."""
        found = []
        for start in range(0, len(tasks), CHECKED_TOGETHER):
            inquiries = [self._opened(task, ()) for task in tasks[start : start + CHECKED_TOGETHER]]
            for _ in self._with_golds(inquiries):
                pass
            found += [inquiry.check for inquiry in inquiries if inquiry.check is not None]
        return found

    def inquire(self, asked: Sequence[tuple[SqlTask, Sequence[str]]]) -> list[Inquiry]:
        """Verdicts on the queries of each task; where its golds are unusable the check says so instead."""
        with _collecting_rarely():
            inquiries = [self._opened(task, sqls) for task, sqls in asked]
            new = self._new(inquiries)
            # The thread mostly waits for the executors; meanwhile this one compares.
            executed = self._executing.submit(self._execute, inquiries, new)
            similarities = self._similarities(new)
            judged = executed.result()
            for key, found in judged.items():
                self._settle(key, new[key], found, similarities.get(key))
            for inquiry in inquiries:
                self._share(inquiry, judged, new)
        self._since_collection += len(new)
        if self._since_collection >= COLLECT_ALL_AFTER:
            self._since_collection = 0
            gc.collect()
        return inquiries

    def _opened(self, task: SqlTask, sqls: Sequence[str]) -> Inquiry:
        """With a key for each query: of the databases' contents, policy, golds and the canonical query."""
        try:
            contents = [content_key(path) for path in self._databases(task)]
        except DatabaseUnreadable as error:
            return Inquiry(task=task, check=GoldCheck(usable=False, reason=str(error), infrastructure=True))
        self.compared += 1
        parts = "\0".join((*contents, task.denotation, *task.gold_sqls))
        stem = blake2b(parts.encode("utf-8", "surrogatepass"), digest_size=32).digest()
        keys = {
            sql: blake2b(stem + canonical(sql).encode("utf-8", "surrogatepass"), digest_size=20).digest()
            for sql in dict.fromkeys(sqls)
        }
        return Inquiry(task=task, keys=keys)

    def _new(self, inquiries: Sequence[Inquiry]) -> dict[bytes, tuple[Inquiry, str]]:
        """Queries without a verdict, each with the first inquiry that asks for it; hands out the verdicts known."""
        new: dict[bytes, tuple[Inquiry, str]] = {}
        for inquiry in inquiries:
            for sql, key in inquiry.keys.items():
                known = self.cache.get(key)
                if known is not None:
                    inquiry.verdicts[key] = known
                else:
                    new.setdefault(key, (inquiry, sql))
        return new

    def _execute(self, inquiries: Sequence[Inquiry], new: Mapping[bytes, tuple[Inquiry, str]]) -> dict[bytes, Judged]:
        """Golds first, then the new candidates of tasks that can be scored; so many tasks at a time as the results of
        their golds, which are held meanwhile, allow."""
        judged: dict[bytes, Judged] = {}
        for part in self._with_golds(inquiries):
            # A query that several tasks share is judged with the first that asks for it.
            due = {
                key: Candidate(
                    sql=sql,
                    golds=golds,
                    databases=self._databases(inquiry.task),
                    policy=inquiry.task.denotation,
                )
                for inquiry, golds in part
                if inquiry.usable
                for sql, key in inquiry.keys.items()
                if key in new and new[key][0] is inquiry
            }
            judged.update(zip(due, self._judge.judge(list(due.values())), strict=True))
            due.clear()  # its golds are not needed any more, and the next ones come first
        return judged

    def _with_golds(self, inquiries: Sequence[Inquiry]) -> Iterator[list[tuple[Inquiry, list[Gold]]]]:
        """Checks the golds of those that wait for it: some of them at a time, each with the golds that count. A list is
        empty once the next one is asked for, so that the golds of two are never held."""
        waiting = [inquiry for inquiry in inquiries if inquiry.check is None]
        requests = [
            GoldRequest(sqls=i.task.gold_sqls, databases=self._databases(i.task), policy=i.task.denotation)
            for i in waiting
        ]
        following = iter(waiting)
        for chunk in self._golds.chunks(requests):
            part = [self._checked(next(following), golds) for golds in chunk]
            chunk.clear()
            yield part
            part.clear()

    def _checked(self, inquiry: Inquiry, golds: Sequence[Gold]) -> tuple[Inquiry, list[Gold]]:
        inquiry.check, counted = checked(golds, self._config.execution.order_dependent_gold)
        inquiry.counted = [gold.sql for gold in counted]
        inquiry.passing = any(gold.infrastructure or gold.order_lost for gold in golds)
        return inquiry, counted

    def _similarities(self, new: Mapping[bytes, tuple[Inquiry, str]]) -> dict[bytes, Similarities]:
        """Of each new candidate to every gold of its task; whether a gold counts is being found out meanwhile."""
        if not self._config.atomic.enabled:
            return {}
        found: dict[bytes, Similarities] = {}
        for key, (inquiry, sql) in new.items():
            try:
                comparer = self._comparer(inquiry.task.databases[0])
            except DatabaseUnreadable:
                continue
            found[key] = {gold: comparer.similarity(gold, sql) for gold in inquiry.task.gold_sqls}
            self.compared += 1
        return found

    def _settle(
        self, key: bytes, entry: tuple[Inquiry, str], judged: Judged, similarities: Similarities | None
    ) -> None:
        """Gives a new candidate its verdict, and keeps it where it will hold."""
        inquiry, sql = entry
        if self._config.atomic.enabled and similarities is None:
            judged = Judged(level=0, unscorable=True, error=f"the schema of {inquiry.task.db_id} cannot be read")
        constant = judged.level == 2 and self._config.execution.constant_answer == "wrong"
        constant = constant and is_constant(sql, inquiry.counted)
        scores = [similarities[gold] for gold in inquiry.counted] if similarities else []
        best = max(scores, key=lambda score: score.similarity, default=None)
        verdict = Verdict(
            judged=judged,
            atomic=best.similarity if best else None,
            token_fallback=best is not None and best.token_fallback,
            constant=constant,
        )
        inquiry.verdicts[key] = verdict
        if not (judged.unscorable or inquiry.passing):
            self.cache.put(key, verdict)

    @staticmethod
    def _share(inquiry: Inquiry, judged: Mapping[bytes, Judged], new: Mapping[bytes, tuple[Inquiry, str]]) -> None:
        """Candidates that another inquiry of the batch asked for first."""
        for key in inquiry.keys.values():
            if key in judged:
                inquiry.verdicts[key] = new[key][0].verdicts[key]

    def _comparer(self, database: str) -> AtomicComparer:
        key = content_key(database)
        comparer = self._comparers.get(key)
        if comparer is None:
            comparer = AtomicComparer(read_schema(database))
            self._comparers.put(key, comparer)
        return comparer

    def _databases(self, task: SqlTask) -> tuple[str, ...]:
        """The instances that decide."""
        return task.databases if self._needs_instances else task.databases[:1]


@contextmanager
def _collecting_rarely() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(max(before[0], COLLECT_EVERY), *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
