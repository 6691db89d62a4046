"""What policies that cheat earn beside one that answers with the gold, in a reward mode as its YAML file sets it.

The memory holds the traces that the gold policy leaves behind. Constant, empty and literal answers are made of the
gold's rows on the primary instance, which no policy sees: they bound what a policy that has learned them by heart can
earn. The reasonings are sentences about the task's tables, all from a few templates, so memory values are higher than
those of a model's own words. Completions that the mode cannot score (golds that hang on scan order, in `strict`) are
left out and counted.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from conf.load import load
from conf.schema.reward import RewardConfig
from conf.schema.reward_benchmark import RewardBenchmarkConfig
from conf.schema.score import ScoreConfig
from measure.rewards.workload import Dataset, batches, load_questions, read_tables, reasoning
from rewards.carriers import RewardResult, SqlTask
from rewards.combine import RIGHT, Combiner, Components
from rewards.components.memory import MemoryComponent
from rewards.memory_store import VerifiedTrace
from rewards.scorer import ScoreJob, Scorer
from rewards.sql.cheats import cheats
from rewards.sql.executor import ExecutorPool
from rewards.sql.files import expected_files, instance_files
from rewards.sql.query import Query

Mode = Literal["finer", "strict"]
BATCH = 32
"""Tasks scored together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What a policy may use of one question."""

    task: SqlTask
    cheats: Mapping[str, str]
    """By kind: constant, empty, and literal where it is short enough to be executed."""
    trace: str
    """Verified reasoning of another database."""

    @property
    def table(self) -> str:
        """A table of the database, quoted."""
        name = read_tables(self.task.databases[0])[0][0].replace('"', '""')
        return f'"{name}"'

    def own(self, answer: str) -> str:
        """A completion with reasoning about this database."""
        return f"<think>{reasoning(self.task, answer)}</think>{answer}"

    def copied(self, answer: str) -> str:
        return f"<think>{self.trace}</think>{answer}"

    def literal(self) -> str:
        return self.cheats.get("literal", "The rows are too many to copy.")


POLICIES: dict[str, Callable[[Seen], str]] = {
    "gold": lambda seen: seen.own(seen.task.gold_sqls[0]),
    "constant": lambda seen: seen.own(seen.cheats["constant"]),
    "empty": lambda seen: seen.own(seen.cheats["empty"]),
    "literal": lambda seen: seen.own(seen.literal()),
    "literal + table": lambda seen: seen.own(
        f"SELECT * FROM ({seen.literal()}) WHERE (SELECT count(*) FROM {seen.table}) >= 0"
    ),
    "copied, wrong SQL": lambda seen: seen.copied(f"SELECT * FROM {seen.table}"),
    "copied, no SQL": lambda seen: seen.copied("There is no query for this question."),
    "prose, SELECT 1": lambda seen: seen.own("SELECT 1"),
}


def measure(config: RewardBenchmarkConfig, dataset: Dataset, mode: Mode) -> dict[str, float]:
    """For each policy: mean total, share judged right, mean total as a share of the highest, share of the completions
    whose traces would enter the memory. Raises BenchmarkError."""
    reward = mode_config(mode)
    highest = Combiner(reward).total(Components(format=1.0, execution=RIGHT, atomic=1.0, memory=1.0))
    tasks = _tasks(config, dataset)
    with ExecutorPool(config.executors) as pool:
        memory = MemoryComponent(reward.memory)
        scorer = Scorer(reward, pool, memory)
        seen = list(_seen(tasks, _remember(memory, scorer, tasks), pool, reward, config.seed))
        figures = {"questions": float(len(seen)), "traces": float(len(memory))}
        if config.instances is not None:
            figures["with made instances"] = float(sum(_made(one.task, config.instances) != () for one in seen))
        for name, policy in POLICIES.items():
            results = _score(scorer, [ScoreJob(task=one.task, completions=[policy(one)]) for one in seen])
            verified = len(scorer.take_verified())
            figures["unscorable"] = float(sum(result.total is None for result in results))
            figures |= {f"{name}: {key}": value for key, value in _earned(results, highest, verified).items()}
    return figures


def mode_config(mode: Mode) -> RewardConfig:
    """The reward group's option, as every command composes it."""
    return load(ScoreConfig, "score", [f"reward={mode}", "input=-", "databases=-", "output=-"]).reward


def _tasks(config: RewardBenchmarkConfig, dataset: Dataset) -> list[SqlTask]:
    """With every instance that exists, also where the official metric looks at one."""
    questions = load_questions(config.root, dataset).questions
    step = max(1, len(questions) // config.limit) if config.limit is not None else 1
    tasks = [question.task(dataset) for question in questions[::step][: config.limit]]
    return [replace(task, databases=_instances(task, config.instances)) for task in tasks]


def _instances(task: SqlTask, made: str | None) -> tuple[str, ...]:
    others = _made(task, made) if made is not None else ()
    return others or expected_files(Path(task.databases[0]).parent.parent, task.db_id)


def _made(task: SqlTask, made: str) -> tuple[str, ...]:
    return instance_files(Path(made), task.db_id)


def _remember(memory: MemoryComponent, scorer: Scorer, tasks: Sequence[SqlTask]) -> list[VerifiedTrace]:
    """Lets the gold policy fill the memory; the traces that it took."""
    own = [f"<think>{reasoning(task, task.gold_sqls[0])}</think>{task.gold_sqls[0]}" for task in tasks]
    _score(scorer, [ScoreJob(task=task, completions=[text]) for task, text in zip(tasks, own, strict=True)])
    taken = []
    for trace in scorer.take_verified():
        before = len(memory)
        if memory.remember([trace]) > before:
            taken.append(trace)
    return taken


def _seen(
    tasks: Sequence[SqlTask],
    traces: Sequence[VerifiedTrace],
    pool: ExecutorPool,
    reward: RewardConfig,
    seed: int,
) -> Iterator[Seen]:
    """Questions whose gold runs, where another database has left a trace."""
    budget = reward.execution.budget
    queries = [Query(database=task.databases[0], sql=task.gold_sqls[0], budget=budget) for task in tasks]
    made = pool.each(
        queries,
        lambda _, run: {c.kind: c.sql for c in cheats(run, chars=budget.sql_chars)} if run.status == "ok" else {},
    )
    for task, kinds in zip(tasks, made, strict=True):
        others = [trace for trace in traces if trace.db_id != task.db_id]
        if kinds and others:
            trace = random.Random(f"{seed} {task.id}").choice(others)
            yield Seen(task=task, cheats={str(kind): sql for kind, sql in kinds.items()}, trace=trace.reasoning)


def _score(scorer: Scorer, jobs: Sequence[ScoreJob]) -> list[RewardResult]:
    """One result a job, in order."""
    return [results[0] for batch in batches(jobs, BATCH) for results in scorer.score_batch(batch)]


def _earned(results: Sequence[RewardResult], highest: float, verified: int) -> dict[str, float]:
    totals = [result.total for result in results if result.total is not None]
    if not totals:
        return {}
    mean = sum(totals) / len(totals)
    return {
        "total": mean,
        "right": sum(result.correct for result in results) / len(totals),
        "of highest": mean / highest,
        "verified": verified / len(totals),
    }
