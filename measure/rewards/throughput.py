"""Completions a second of format + execution + atomic with cold and warm caches, and of the memory component."""

import statistics
import time
from collections.abc import Sequence

from conf.schema.reward import MemoryReward, RewardConfig
from conf.schema.reward_benchmark import RewardBenchmarkConfig
from measure.rewards.workload import Dataset, batches, prediction_jobs, reasoning
from rewards.components.memory import MemoryComponent
from rewards.memory_store import VerifiedTrace
from rewards.scorer import ScoreJob, Scorer
from rewards.sql.executor import ExecutorPool
from rewards.sql.parse import clear_caches

BATCH = 32
"""Groups scored together."""
MEMORY_GROUPS = 200


def count(jobs: Sequence[ScoreJob]) -> int:
    return sum(len(job.completions) for job in jobs)


def score_all(scorer: Scorer, jobs: Sequence[ScoreJob]) -> float:
    """Seconds."""
    start = time.perf_counter()
    for batch in batches(jobs, BATCH):
        scorer.score_batch(batch)
    return time.perf_counter() - start


def measure(config: RewardBenchmarkConfig, dataset: Dataset) -> dict[str, float]:
    """Median rates over the repeats. Cold: no result, no gold and no syntax tree is known; executors are running."""
    jobs = prediction_jobs(config.root, dataset)
    settings = RewardConfig(memory=MemoryReward(enabled=False))
    cold, warm = [], []
    with ExecutorPool(config.executors) as pool:
        Scorer(settings, pool).score_batch(jobs[:4])
        for _ in range(config.repeats):
            clear_caches()
            scorer = Scorer(settings, pool)
            cold.append(count(jobs) / score_all(scorer, jobs))
            warm.append(count(jobs) / score_all(scorer, jobs))
    return {
        "completions": count(jobs),
        "cold_per_s": statistics.median(cold),
        "warm_per_s": statistics.median(warm),
    }


def measure_memory(config: RewardBenchmarkConfig) -> dict[str, float]:
    """Reasonings embedded and aligned a second, none of them seen before, on a store of `traces` with the default
    embedder."""
    jobs = prediction_jobs(config.root, "bird")
    memory = MemoryComponent(MemoryReward(duplicate_cosine=1.0))
    tasks = [job.task for job in jobs]
    memory.remember(
        [
            VerifiedTrace(task_id=f"other-{n}", db_id=task.db_id, reasoning=reasoning(task, f"stored {n}"))
            for n, task in ((n, tasks[n % len(tasks)]) for n in range(config.traces))
        ]
    )
    groups = [(task, [reasoning(task, f"asked {n}") for n in range(BATCH)]) for task in tasks[:MEMORY_GROUPS]]
    start = time.perf_counter()
    for task, texts in groups:
        memory.score(task, texts, [False] * len(texts))
    seconds = time.perf_counter() - start
    return {"traces": len(memory), "reasonings_per_s": len(groups) * BATCH / seconds}
