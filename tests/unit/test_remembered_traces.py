"""What the client keeps of the memory for new actors: no more than a store holds, and enough for the same scores."""

import asyncio
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest

from conf.schema.reward import RewardConfig
from rewards.carriers import SqlTask
from rewards.client import RewardClient
from rewards.memory_store import VerifiedTrace
from rewards.scorer import ScoreJob
from rewards.seat import Memory
from rewards.sql.executor import ExecutorPool
from tests.unit.local_actors import LocalActor

STEPS = " ".join(f"step{n} takes name because row{n} needs age here{n}" for n in range(12))


@pytest.fixture
def dogs(tmp_path: Path) -> str:
    path = tmp_path / "dogs.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE dog (name TEXT, age INTEGER)")
    connection.close()
    return str(path)


def config() -> RewardConfig:
    return RewardConfig.model_validate({"memory": {"keep_failed": True}, "server": {"actors": 2}})


def alignments(actor: LocalActor, dogs: str) -> Sequence[float]:
    """Of wrong answers whose reasoning is like some of the remembered."""
    texts = [f"<think>{STEPS} {word}</think>SELECT 7" for word in ("alpha", "beta", "gamma", "delta delta")]
    job = ScoreJob(task=task(dogs, "asked", "SELECT 1"), completions=texts)
    (results,) = actor.scorer.score_batch([job])
    return [result.components["memory"] or 0.0 for result in results]


def task(dogs: str, name: str, gold: str) -> SqlTask:
    return SqlTask(id=name, db_id=f"db-{name}", question="?", gold_sqls=(gold,), databases=(dogs,))


def answer(step: int, word: str, value: int) -> str:
    """Distinct words a step, so that its traces are no near-duplicates of those of other steps."""
    words = " ".join(f"{word}{step}x{n} name age" for n in range(12))
    return f"<think>{words}</think>SELECT {value}"


def test_the_log_holds_what_the_stores_hold_and_a_new_actor_scores_as_one_that_never_died(dogs: str) -> None:
    actors: list[LocalActor] = []
    dead: set[int] = set()

    async def run(pool: ExecutorPool) -> None:
        def start() -> LocalActor:
            actors.append(LocalActor(config(), pool, dead, len(actors)))
            return actors[-1]

        client = RewardClient(config(), start)
        await client.start()
        for step in range(12):
            distinct = step % 4
            one = task(dogs, f"t{distinct}", "SELECT 1")
            same = [answer(distinct, "right", 1)] * 2 + [answer(distinct, "wrong", 2)]
            near = [text.replace("name age</think>", f"name age s{step}</think>") for text in same]
            await client.score(one, same + near)
            if step == 5:
                dead.add(0)
            await client.commit()
        log = [trace for batch in client._memory.log for trace in batch]
        # Twelve steps, 24 distinct right and wrong traces each: four of each kind are no near-duplicates.
        assert len(log) == len(set(log)) == 8
        assert client.stats().memory_traces == 4
        survivor = next(actor for actor in actors if actor.number not in dead)
        newest = start()
        for batch in client._memory.log:
            await newest.call("remember", batch)
        expected = alignments(survivor, dogs)
        assert 0.0 < expected[0] < 1.0
        assert alignments(newest, dogs) == expected
        assert alignments(actors[2], dogs) == expected
        await client.close()

    with ExecutorPool(1) as pool:
        asyncio.run(asyncio.wait_for(run(pool), timeout=60))


def trace(name: str) -> VerifiedTrace:
    return VerifiedTrace(task_id=name, db_id="d", reasoning=name)


def test_a_batch_that_nobody_keeps_leaves_no_trace_and_one_under_way_is_whole() -> None:
    memory = Memory()
    first, second, third = [trace("a"), trace("b")], [trace("a")], [trace("b"), trace("c")]
    memory.log += [first, second, third]
    memory.settle(first, [trace("a")])
    memory.settle(second, [trace("a")])
    assert memory.log == [[trace("a")], third]
    memory.begin("memory.sqlite")
    memory.settle(third, third)  # its actors answered after the file was loaded
    assert (memory.base, memory.log) == ("memory.sqlite", [])
