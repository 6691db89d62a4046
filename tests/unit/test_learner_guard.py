"""A rollout pool that is lost together with the learner counts as the learner's loss; alone, it ends the run."""

import asyncio
from typing import NoReturn

import pytest

from rollout.errors import PoolExhausted
from rollout.pool import RolloutPool
from tests.unit.fake_workers import Fleet, ask, started, strand
from trainer.guard import unless_lost
from trainer.learner.errors import LearnerLost


async def learner_that_ends(after_s: float) -> NoReturn:
    await asyncio.sleep(after_s)
    raise LearnerLost("learner rank 0 was lost")


async def job(pool: RolloutPool) -> None:
    await ask(pool, "g")


@pytest.mark.parametrize("lost_after_s", [0.0, 0.1])
def test_a_pool_exhausted_together_with_the_learner_is_the_learners_loss(lost_after_s: float) -> None:
    async def run() -> None:
        async with started(Fleet(deadly={"g"}), 1, max_restarts=0) as pool:
            with pytest.raises(LearnerLost, match="rank 0 was lost"):
                await unless_lost(job(pool), learner_that_ends(lost_after_s), cause_s=5.0)

    asyncio.run(run())


def test_workers_that_wait_for_weights_lost_with_the_learner_hold_up_nobody() -> None:
    async def run() -> None:
        fleet = Fleet()
        async with started(fleet, 1) as pool:
            await strand(fleet, pool, "g")
            cancelled: list[str] = []

            async def watched() -> None:
                try:
                    await job(pool)
                except asyncio.CancelledError:
                    cancelled.append(pool.states()[0])
                    raise

            began = asyncio.get_running_loop().time()
            with pytest.raises(LearnerLost):
                await unless_lost(watched(), learner_that_ends(0.1))
            # The pool alone would have given the group up after 4 s.
            assert asyncio.get_running_loop().time() - began < 1.0
            assert cancelled == ["stale (0 groups)"]

    asyncio.run(run())


def test_a_pool_exhausted_for_its_own_reason_ends_the_run_with_it() -> None:
    async def run() -> None:
        async with started(Fleet(deadly={"g"}), 1, max_restarts=0) as pool:
            began = asyncio.get_running_loop().time()
            with pytest.raises(PoolExhausted, match="no rollout worker is left after 0 restarts.*life 0 ended"):
                await unless_lost(job(pool), learner_that_ends(3600), cause_s=0.1)
            assert asyncio.get_running_loop().time() - began >= 0.1

    asyncio.run(run())
