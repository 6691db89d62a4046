"""The reward actors under load, death, silence and shutdown, on a private Ray."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from conf.schema.reward import BudgetConfig, ExecutionReward, RewardConfig, ServerConfig
from rewards.actor import ray_actors
from rewards.carriers import SqlTask
from rewards.client import RewardClient
from rewards.seat import RewardServerLost
from tests.dogs import write_dogs

pytestmark = pytest.mark.integration

THINK = "<think>" + "The question asks for dogs, so the dog table is read and its rows are counted. " * 2 + "</think>"
BUDGET = BudgetConfig(vm_steps=5_000_000, rows=1000)
ENDLESS = "WITH RECURSIVE t(a) AS (VALUES (1) UNION ALL SELECT a + 1 FROM t) SELECT sum(a) FROM t"


@pytest.fixture(scope="module", autouse=True)
def private_ray() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, logging_level="warning", log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_dogs(tmp_path_factory.mktemp("dogs") / "dogs.sqlite", [("rex", 3), ("ace", 5)])


def task(database: str, number: int) -> SqlTask:
    return SqlTask(id=f"t{number}", db_id="dogs", question="?", gold_sqls=(f"SELECT {number}",), databases=(database,))


def config(**server: Any) -> RewardConfig:
    return RewardConfig(execution=ExecutionReward(budget=BUDGET), server=ServerConfig(**server))


def with_client(settings: RewardConfig, use: Callable[[RewardClient], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        client = RewardClient(settings, ray_actors(settings))
        try:
            await use(client)
        finally:
            await client.close()

    asyncio.run(asyncio.wait_for(run(), timeout=120))


def command_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # a zombie counts as ended
        return ""


def actor_processes() -> list[psutil.Process]:
    return [p for p in psutil.Process().children(recursive=True) if "RewardActor" in command_of(p)]


def executor_processes() -> list[psutil.Process]:
    return [p for p in psutil.Process().children(recursive=True) if "rewards.sql.sandbox" in command_of(p)]


async def check_groups(client: RewardClient, database: str, numbers: range) -> None:
    """Every group gets its own results."""
    groups = await asyncio.gather(
        *(client.score(task(database, n), [f"{THINK}SELECT {n}", f"{THINK}SELECT {n + 1}", "x"]) for n in numbers)
    )
    assert [[r.correct for r in group] for group in groups] == [[True, False, False]] * len(numbers)


def test_groups_are_routed_and_none_is_mixed_up(database: str) -> None:
    async def use(client: RewardClient) -> None:
        await check_groups(client, database, range(60))
        stats = client.stats()
        assert (stats.tasks, stats.completions, stats.queue_groups, stats.groups_in_flight) == (60, 180, 0, 0)
        assert stats.actors == 2

    with_client(config(actors=2, max_queue=5), use)


def test_a_killed_actor_is_replaced_and_its_groups_are_scored(database: str) -> None:
    async def use(client: RewardClient) -> None:
        await check_groups(client, database, range(4))
        (actor,) = actor_processes()
        scoring = asyncio.create_task(check_groups(client, database, range(200, 300)))
        await asyncio.sleep(0.05)
        actor.kill()
        await scoring
        assert client.stats().actor_restarts == 1

    with_client(config(), use)


def test_a_silent_actor_is_replaced(database: str) -> None:
    async def use(client: RewardClient) -> None:
        await check_groups(client, database, range(4))
        (actor,) = actor_processes()
        actor.send_signal(signal.SIGSTOP)
        await check_groups(client, database, range(10, 12))
        assert client.stats().actor_restarts >= 1

    quick = BUDGET.model_copy(update={"wall_s": 4.0})
    with_client(RewardConfig(execution=ExecutionReward(budget=quick), server=ServerConfig(timeout_s=5.0)), use)


def test_back_pressure_and_queue_age(database: str) -> None:
    async def use(client: RewardClient) -> None:
        await check_groups(client, database, range(1))
        slow = [asyncio.create_task(client.score(task(database, n), [f"{THINK}{ENDLESS} -- {n}"])) for n in range(30)]
        await asyncio.sleep(0.2)
        stats = client.stats()
        assert 0 < stats.queue_groups <= 4
        assert stats.queue_age_s > 0.0
        results = await asyncio.gather(*slow)
        assert {r.error_kind for group in results for r in group} == {"timeout"}

    with_client(config(max_queue=4), use)


def test_memory_survives_a_dead_actor_and_a_checkpoint(database: str, tmp_path: Path) -> None:
    steps = " ".join(f"step{n} takes name because row{n} needs age here{n}" for n in range(12))
    think = f"<think>{steps}</think>"
    path = str(tmp_path / "memory.sqlite")

    async def use(client: RewardClient) -> None:
        await client.score(task(database, 1), [think + "SELECT 1"])
        await client.commit()
        assert await client.save(path)
        for actor in actor_processes():
            actor.kill()
        await client.score(task(database, 2), [f"{THINK}SELECT 2"])
        assert client.stats().memory_traces == 1

    async def resume(client: RewardClient) -> None:
        await client.load(path)
        await client.score(task(database, 3), [f"{THINK}SELECT 3"])
        assert client.stats().memory_traces == 1

    with_client(config(actors=2), use)
    with_client(config(), resume)


def test_close_leaves_no_process_and_wakes_waiters(database: str) -> None:
    async def use(client: RewardClient) -> None:
        await check_groups(client, database, range(2))
        assert executor_processes()
        waiting = asyncio.create_task(client.score(task(database, 9), [f"{THINK}{ENDLESS}"]))
        await asyncio.sleep(0.01)
        await client.close()
        with pytest.raises(RewardServerLost, match="closed"):
            await waiting

    with_client(config(), use)
    deadline = time.monotonic() + 10
    while executor_processes() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert executor_processes() == []
    assert os.path.exists(database)
