"""The reference's way of scoring, as a baseline: one HTTP request a candidate, pandas, one after the other.

The client asks the executor service for one candidate at a time over a new connection, compares pandas tables with the
gold's, whose rows it holds already, and for a wrong candidate that runs parses both queries for their overlap. No
duplicate is recognised and nothing is batched. Its verdicts have the reference's defects; only its speed is of interest
here.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

import pandas  # type: ignore[import-untyped]
import requests
import sqlglot
from sqlglot.errors import SqlglotError

from conf.schema.reward import MemoryReward, RewardConfig
from conf.schema.reward_benchmark import RewardBenchmarkConfig
from measure.rewards.reference_server import serve
from measure.rewards.throughput import count, score_all
from measure.rewards.workload import GROUP, group_jobs
from rewards.components.format import extract
from rewards.scorer import ScoreJob, Scorer
from rewards.sql.executor import ExecutorPool
from rewards.sql.parse import clear_caches

REQUEST_S = 62.0


@contextmanager
def _server() -> Iterator[str]:
    """The address of a running executor service."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs,), daemon=True)
    process.start()
    try:
        if not ours.poll(60):
            raise RuntimeError("the reference's service did not start within 60 s")
        yield f"http://127.0.0.1:{ours.recv()}/execute"
    finally:
        process.kill()
        process.join(10)


class ReferenceScorer:
    """Scores one candidate at a time over HTTP."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy's loopback is another machine's
        self._golds: dict[tuple[str, str], list[dict[str, Any]]] = {}

    def learn_golds(self, jobs: Sequence[ScoreJob]) -> None:
        """Gold rows are known before training."""
        for job in jobs:
            key = job.task.databases[0], job.task.gold_sqls[0]
            self._golds[key] = self._execute(*key)["rows"] or []

    def score(self, job: ScoreJob) -> list[float]:
        return [self._one(job, completion) for completion in job.completions]

    def _one(self, job: ScoreJob, completion: str) -> float:
        sql = extract(completion, RewardConfig().format).sql or ""
        database, gold = job.task.databases[0], job.task.gold_sqls[0]
        answer = self._execute(database, sql)
        if not answer["ok"]:
            return 1.0
        if _rows(self._golds[database, gold]) == _rows(answer["rows"]):
            return 4.0
        return 2.0 + _overlap(gold, sql)

    def _execute(self, database: str, sql: str) -> dict[str, Any]:
        request = {"database": database, "sql": sql}
        answer: dict[str, Any] = self._session.post(self._address, json=request, timeout=REQUEST_S).json()
        return answer


def _rows(records: list[dict[str, Any]]) -> set[tuple[Any, ...]]:
    return set(map(tuple, pandas.DataFrame(records).fillna("").to_numpy().tolist()))


def _overlap(gold: str, predicted: str) -> float:
    try:
        left, right = (
            {node.sql() for node in sqlglot.parse_one(sql, dialect="sqlite").walk() if node.key != "identifier"}
            for sql in (gold, predicted)
        )
    except SqlglotError:
        return 0.0
    return len(left & right) / len(left | right)


def measure(config: RewardBenchmarkConfig) -> dict[str, float]:
    """Both ways on the same groups with cold caches."""
    groups = max(1, config.reference_completions // GROUP)
    jobs = group_jobs(config.root, "spider", groups, config.seed)
    with _server() as address:
        baseline = ReferenceScorer(address)
        baseline.learn_golds(jobs)
        start = time.perf_counter()
        for job in jobs:
            baseline.score(job)
        reference = count(jobs) / (time.perf_counter() - start)
    ours = _ours(config, jobs)
    return {"completions": count(jobs), "reference_per_s": reference, "ours_per_s": ours, "ratio": ours / reference}


def _ours(config: RewardBenchmarkConfig, jobs: Sequence[ScoreJob]) -> float:
    settings = RewardConfig(memory=MemoryReward(enabled=False))
    with ExecutorPool(config.executors) as pool:
        Scorer(settings, pool).score_batch(jobs[:1])
        clear_caches()
        return count(jobs) / score_all(Scorer(settings, pool), jobs)
