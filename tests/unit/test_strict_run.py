"""A run under conf/reward/strict.yaml, one prompt a step, where some golds hang on scan order: it goes to its end,
whether the check of the data has left them out or not, and goes on from a checkpoint."""

import asyncio
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest

from conf.load import load
from conf.schema.algo import AlgoConfig
from conf.schema.rollout import SamplingConfig
from conf.schema.root import TrainConfig
from rewards.carriers import SqlTask
from rewards.client import RewardClient
from rewards.sql.executor import ExecutorPool
from rollout.carriers import Completion, Group, Prompt
from rollout.tasks import TaskSet, TaskStream
from tests.unit.local_actors import LocalActor
from trainer.batch.batcher import Batcher
from trainer.carriers import TrainingSequence
from trainer.data import checked
from trainer.pipeline.buffer import GroupBuffer
from trainer.pipeline.clock import StageClock
from trainer.pipeline.loop import StepOutcome, TooManyUnscorable, TrainingLoop
from trainer.pipeline.producer import Produced, Producer
from trainer.preemption import Preemption
from trainer.step_metrics import ledger_row, outcome_metrics

STEADY = ("SELECT name FROM singer WHERE age > 30", "SELECT count(*) FROM singer", "SELECT max(age) FROM singer")
UNORDERED = (
    "SELECT name FROM singer LIMIT 1",
    "SELECT name, age FROM singer LIMIT 3",
    "SELECT country FROM singer LIMIT 1 OFFSET 1",
)
THINK = (
    f"<think>{'The question asks for singers, so the singer table is read and its rows are looked at. ' * 2}</think>"
)


@pytest.fixture
def config() -> TrainConfig:
    return load(
        TrainConfig,
        "train",
        ["experiment=quickstart", "reward=strict", "pipeline.prompts_per_step=1"],
    )


@pytest.fixture
def tasks(tmp_path: Path) -> tuple[SqlTask, ...]:
    file = tmp_path / "concert.sqlite"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE singer (name TEXT, country TEXT, age INTEGER)")
        rows = [("Joe", "NL", 52), ("Tim", "US", 32), ("Ann", "FR", 29), ("Rose", "FR", 41), ("Max", "DE", 25)]
        connection.executemany("INSERT INTO singer VALUES (?, ?, ?)", rows)
    connection.close()
    pairs = [sql for pair in zip(UNORDERED, STEADY, strict=True) for sql in pair]
    return tuple(
        SqlTask(
            id=f"spider-{number}", db_id="concert", question="?", gold_sqls=(sql,), databases=(str(file),),
            denotation="spider",
        )
        for number, sql in enumerate(pairs)
    )  # fmt: skip


class Policy:
    """Engine and learner: one right answer and one wrong one to every question."""

    def __init__(self) -> None:
        self.version = 0
        self.trained: list[int] = []

    async def generate(self, prompt: Prompt, *, group_id: str, n: int, sampling: SamplingConfig) -> Group:
        texts = [prompt.task.gold_sqls[0], "SELECT name FROM singer WHERE age < 0"]
        completions = [
            Completion(
                text=text, token_ids=(3,), logprobs=(-0.5,), version_spans=((0, self.version),), finish_reason="stop"
            )
            for text in texts
        ]
        return Group(id=group_id, prompt=prompt, completions=tuple(completions))

    async def train(self, sequences: Sequence[TrainingSequence]) -> dict[str, float]:
        self.trained.append(len(sequences))
        return {}

    async def reference_kl(self, sequences: Sequence[TrainingSequence]) -> list[float]:
        raise AssertionError("no KL term is asked for")

    async def synchronise(self, version: int) -> dict[str, float]:
        self.version = version
        return {}


async def steps(
    config: TrainConfig,
    tasks: Sequence[SqlTask],
    pool: ExecutorPool,
    policy: Policy,
    first: int,
    last: int,
    consumed: int,
) -> tuple[list[StepOutcome], int]:
    """What steps first + 1 to last did, from a checkpoint of `consumed` positions; the positions consumed then."""
    stream = TaskStream(tasks, seed=config.seed)
    client = RewardClient(config.reward, lambda: LocalActor(config.reward, pool, set()))
    buffer: GroupBuffer[Produced] = GroupBuffer(
        batch_size=config.pipeline.prompts_per_step, max_staleness=0, consumed=consumed, version=policy.version
    )
    loop = TrainingLoop(
        buffer=buffer,
        producer=Producer(
            prompt_at=lambda position: Prompt(task=stream.task_at(position), text="?", token_ids=(1,)),
            source=policy,
            scoring=client,
            group_size=2,
            sampling=SamplingConfig(),
        ),
        policy=policy,
        memory=client,
        history=stream,
        clock=StageClock(),
        preemption=Preemption(),
        batcher=Batcher(algo=AlgoConfig(), component_weights={}, completion_budget=8),
        stall_timeout_s=30.0,
        max_unscorable_share=config.reward.max_unscorable_share,
    )
    try:
        return [outcome async for outcome in loop.steps(first, last)], buffer.consumed
    finally:
        await client.close()


def trained_and_dropped(outcomes: Sequence[StepOutcome]) -> tuple[set[str], set[tuple[str, str]]]:
    rows = [ledger_row(outcome) for outcome in outcomes]
    trained = {task for row in rows for _, task, _ in row.trained}
    return trained, {(task, reason) for row in rows for _, task, reason in row.dropped}


def test_what_the_check_leaves_is_trained_on_and_the_rest_is_reported(
    config: TrainConfig, tasks: tuple[SqlTask, ...]
) -> None:
    usable = checked(config, TaskSet(warmup=tasks, train=tasks, heldout=()))
    assert [(entry.id, entry.reason) for entry in usable.dropped] == [
        (f"spider-{number}", "gold order-dependent") for number in (0, 2, 4)
    ]
    policy = Policy()
    with ExecutorPool(1) as pool:
        outcomes, consumed = asyncio.run(steps(config, usable.train, pool, policy, 0, 3, 0))
    assert trained_and_dropped(outcomes) == ({"spider-1", "spider-3", "spider-5"}, set())
    assert (consumed, policy.version) == (3, 3)


def test_unscorable_golds_that_are_met_all_the_same_end_neither_the_run_nor_its_resumption(
    config: TrainConfig, tasks: tuple[SqlTask, ...]
) -> None:
    policy = Policy()
    with ExecutorPool(1) as pool:
        before, consumed = asyncio.run(steps(config, tasks, pool, policy, 0, 2, 0))
        assert consumed == 2
        after, consumed = asyncio.run(steps(config, tasks, pool, policy, 2, 6, consumed))
    assert consumed == 6
    outcomes = before + after
    assert trained_and_dropped(outcomes) == (
        {"spider-1", "spider-3", "spider-5"},
        {(f"spider-{number}", "unscorable_data") for number in (0, 2, 4)},
    )
    assert [outcome.step for outcome in outcomes] == [1, 2, 3, 4, 5, 6]
    assert policy.trained == [2, 2, 2]
    assert policy.version == 3
    metrics = [outcome_metrics(outcome) for outcome in outcomes]
    assert sum(row["reward/unscorable_data"] for row in metrics) == 6.0
    assert sum(row["reward/unscorable"] for row in metrics) == 0.0


def test_a_missing_database_still_ends_the_run(config: TrainConfig, tasks: tuple[SqlTask, ...]) -> None:
    with ExecutorPool(1) as pool:
        Path(tasks[0].databases[0]).unlink()
        with pytest.raises(TooManyUnscorable, match="2 of 2 completions"):
            asyncio.run(steps(config, tasks, pool, Policy(), 0, 6, 0))
