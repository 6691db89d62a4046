"""The pool against workers that die or fall silent: each group arrives once, or its caller learns why it cannot."""

import asyncio
import random

import pytest

from rollout.errors import PoolExhausted
from tests.unit.fake_workers import Fleet, ask, handle, started


def test_a_lost_workers_groups_are_sampled_again_under_the_newest_weights() -> None:
    async def run() -> None:
        fleet = Fleet()
        async with started(fleet, 1) as pool:
            await pool.update_weights(handle(7))
            fleet.deadly_once = {"g1"}
            groups = await asyncio.gather(*(ask(pool, f"g{i}") for i in range(3)))
            assert [group.id for group in groups] == ["g0", "g1", "g2"]
            assert {group.oldest_version for group in groups} == {7}
            assert all(version == 7 for _, _, version in fleet.begun)
            assert (fleet.lives, pool.restarts) == (2, 1)
            assert [name for _, name, _ in fleet.begun] == ["g0", "g1", "g2"] * 2
            assert fleet.notes == [
                "life 0 ended (3 groups to sample again, 3 restarts left)",
                "rollout worker 0 is back after 0.0 s",
            ]

    asyncio.run(run())


def test_a_group_that_kills_its_workers_is_given_up_and_the_rest_goes_on() -> None:
    async def run() -> None:
        async with started(Fleet(deadly={"poison"}), 1, max_restarts=5) as pool:
            with pytest.raises(PoolExhausted, match="group poison was lost with 3 workers"):
                await ask(pool, "poison")
            assert (await ask(pool, "fine")).id == "fine"

    asyncio.run(run())


def test_a_silent_worker_is_replaced_within_the_limit() -> None:
    async def run() -> None:
        fleet = Fleet(deaf_lives={0})
        async with started(fleet, 1, group_timeout_s=0.2) as pool:
            began = asyncio.get_running_loop().time()
            assert (await ask(pool, "g")).id == "g"
            assert 0.15 < asyncio.get_running_loop().time() - began < 1.0
            assert fleet.killed == [0]

    asyncio.run(run())


def test_restarts_are_limited_and_the_last_cause_is_told() -> None:
    async def run() -> None:
        fleet = Fleet(deaf_lives={0, 1, 2, 3})
        async with started(fleet, 1, group_timeout_s=0.05, max_restarts=1) as pool:
            with pytest.raises(PoolExhausted, match="no rollout worker is left after 1 restarts.*finished no group"):
                await ask(pool, "g")
            with pytest.raises(PoolExhausted, match="no rollout worker is left"):
                await ask(pool, "late")

    asyncio.run(run())


def test_random_deaths_lose_nothing_and_deliver_nothing_twice() -> None:
    async def run(seed: int) -> None:
        chance = random.Random(seed)
        fleet = Fleet()
        async with started(fleet, 3, max_restarts=100) as pool:
            names = [f"g{i}" for i in range(60)]

            async def chaos() -> None:
                for version in range(1, 15):
                    if version in (2, 5):
                        fleet.deadly_once = {chance.choice(names[30:])}
                    await asyncio.sleep(0.004)
                    await pool.update_weights(handle(version))

            jobs = [asyncio.create_task(ask(pool, name)) for name in names]
            trouble = asyncio.create_task(chaos())
            groups = await asyncio.gather(*jobs)
            await trouble
            assert [group.id for group in groups] == names
            assert 1 <= pool.restarts <= 2

    for seed in range(3):
        asyncio.run(run(seed))
