"""A long run of ordinary and hostile candidates: nothing lost, nothing mixed up, memory flat, the same verdicts twice.

The server measured is this process with its executors: their resident memory together, sampled after every hundredth of
the candidates. Each group carries one query of its own number, so that a result that reached the wrong group shows.
"""

import time
from dataclasses import dataclass
from hashlib import blake2b

import psutil

from conf.schema.reward import BudgetConfig, ExecutionReward, MemoryReward, RewardConfig, ServerConfig
from conf.schema.reward_benchmark import RewardBenchmarkConfig
from measure.rewards.workload import batches, completion, soak_jobs
from rewards.carriers import RewardResult
from rewards.scorer import ScoreJob, Scorer
from rewards.sql.executor import ExecutorPool

BATCH = 8
CACHE = 2_000
"""Verdicts kept: small, so that memory has to come to rest."""
BUDGET = BudgetConfig(vm_steps=2_000_000, rows=20_000)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Pass:
    verdicts: str
    """Digest of every result, in order."""
    seconds: float
    completions: int
    misassigned: int
    unscorable: int
    restarts: int
    rss_mib: list[float]
    """After every hundredth."""


def measure(config: RewardBenchmarkConfig) -> dict[str, float]:
    """Two passes over the same candidates, each with a fresh scorer and fresh executors."""
    first, second = _run(config), _run(config)
    steady = first.rss_mib[len(first.rss_mib) // 10 :]
    return {
        "completions": first.completions,
        "per_s": first.completions / first.seconds,
        "misassigned": first.misassigned + second.misassigned,
        "unscorable": first.unscorable,
        "executor_restarts": first.restarts,
        "same_verdicts_twice": float(first.verdicts == second.verdicts),
        "rss_mib_after_first_tenth": steady[0],
        "rss_mib_max": max(steady),
        "rss_growth": max(steady) / steady[0] - 1.0,
    }


def _run(config: RewardBenchmarkConfig) -> _Pass:
    settings = RewardConfig(
        execution=ExecutionReward(budget=BUDGET),
        memory=MemoryReward(enabled=False),
        server=ServerConfig(cache_entries=CACHE),
    )
    digest = blake2b(digest_size=16)
    done = misassigned = unscorable = 0
    rss: list[float] = []
    start = time.perf_counter()
    with ExecutorPool(config.executors) as pool:
        scorer = Scorer(settings, pool)
        for number, batch in enumerate(batches(soak_jobs(config.root, config.soak_completions, config.seed), BATCH)):
            marked = [_marked(job, number * BATCH + place) for place, job in enumerate(batch)]
            for job, results in zip(marked, scorer.score_batch(marked), strict=True):
                misassigned += not _belongs(job, results)
                unscorable += sum(result.status == "unscorable" for result in results)
                digest.update(repr([(r.status, r.total, r.error_kind, r.result_digest) for r in results]).encode())
                done += len(results)
            if done * 100 // config.soak_completions > len(rss):
                rss.append(_rss_mib())
        return _Pass(
            verdicts=digest.hexdigest(),
            seconds=time.perf_counter() - start,
            completions=done,
            misassigned=misassigned,
            unscorable=unscorable,
            restarts=pool.restarts,
            rss_mib=rss,
        )


def _marked(job: ScoreJob, number: int) -> ScoreJob:
    """The last candidate becomes a query that names its group."""
    mark = completion(job.task, f"SELECT {number}, 'group'")
    return ScoreJob(task=job.task, completions=[*job.completions[:-1], mark])


def _belongs(job: ScoreJob, results: tuple[RewardResult, ...]) -> bool:
    """Whether every result carries the query of its own completion."""
    own = [text.rpartition("</think>")[2].strip() or None for text in job.completions]
    return own == [result.sql for result in results]


def _rss_mib() -> float:
    process = psutil.Process()
    members = [process, *process.children(recursive=True)]
    return sum(member.memory_info().rss for member in members) / 2**20
