"""The pool's start and end, and who gets a group: the worker that owes least, or its caller an error at once."""

import asyncio

import pytest

from conf.schema.rollout import SamplingConfig
from rollout.carriers import Prompt
from rollout.errors import EngineStartFailed, PoolExhausted, PromptTooLongForEngine
from tests.unit.fake_workers import TASK, Fleet, ask, started


def test_groups_go_to_the_worker_that_owes_least() -> None:
    async def run() -> None:
        fleet = Fleet()
        async with started(fleet, 2) as pool:
            groups = await asyncio.gather(ask(pool, "big", 10), *(ask(pool, f"small{i}", 2) for i in range(4)))
            assert [group.id for group in groups] == ["big", "small0", "small1", "small2", "small3"]
            assert len(groups[0].completions) == 10
            assert groups[1].prompt.text == "small0"
            assert {name for life, name, _ in fleet.begun if life == 0} == {"big"}
        assert sorted(fleet.killed) == [0, 1]

    asyncio.run(run())


def test_a_start_that_fails_ends_all_workers_and_keeps_its_error() -> None:
    async def run() -> None:
        fleet = Fleet(start_errors=[EngineStartFailed("bad settings")])
        with pytest.raises(EngineStartFailed, match="bad settings"):
            async with started(fleet, 2):
                pass
        assert sorted(fleet.killed) == [0, 1]

    asyncio.run(run())


def test_a_cancelled_caller_frees_the_worker() -> None:
    async def run() -> None:
        fleet = Fleet(deaf_lives={0})
        async with started(fleet, 1) as pool:
            job = asyncio.create_task(ask(pool, "g"))
            await asyncio.sleep(0.01)
            job.cancel()
            with pytest.raises(asyncio.CancelledError):
                await job
            await asyncio.sleep(0.01)
            assert fleet.aborted == ["g"]
            assert pool.states() == ["ready (0 groups)"]

    asyncio.run(run())


def test_what_cannot_be_asked_is_refused_at_once() -> None:
    async def run() -> None:
        async with started(Fleet(pace_s=0.01), 1) as pool:
            long = Prompt(task=TASK, text="", token_ids=(1,) * 91)
            with pytest.raises(PromptTooLongForEngine, match="task t: prompt of 91 tokens plus max_tokens=10"):
                await pool.generate(long, group_id="g", n=1, sampling=SamplingConfig(max_tokens=10))
            first = asyncio.create_task(ask(pool, "twice"))
            await asyncio.sleep(0)
            with pytest.raises(ValueError, match="in flight"):
                await ask(pool, "twice")
            await first
        with pytest.raises(PoolExhausted):
            await asyncio.wait_for(ask(pool, "after"), 5)

    asyncio.run(run())
