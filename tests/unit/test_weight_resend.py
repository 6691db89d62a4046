"""Weights that were broadcast are sent again when every worker that held them is lost."""

import asyncio
import contextlib
from types import SimpleNamespace

import pytest

from rollout.errors import WeightUpdateFailed
from rollout.pool import RolloutPool
from tests.unit.fake_workers import Fleet, ask, broadcast, started
from trainer.learner.errors import LearnerLost
from trainer.services import Engines, LearnerPolicy


class FakeLearner:
    """Broadcasts to those who live."""

    def __init__(self) -> None:
        self.published: list[int] = []
        self.trains = asyncio.Event()

    async def train(self, sequences):
        await self.trains.wait()
        return {}

    async def publish(self, version, *, engines):
        self.published.append(version)
        return broadcast(version, engines)


@contextlib.asynccontextmanager
async def watched(learner: FakeLearner, pool: RolloutPool):
    policy = LearnerPolicy(learner, pool)
    watch = asyncio.create_task(policy.resend())
    try:
        yield policy
    finally:
        watch.cancel()


@pytest.fixture(autouse=True)
def _often(monkeypatch):
    monkeypatch.setattr("trainer.services._RESEND_S", 0.005)


def test_a_group_that_waits_for_lost_weights_gets_them() -> None:
    async def run() -> None:
        fleet, learner = Fleet(), FakeLearner()
        async with started(fleet, 1) as pool, watched(learner, pool) as policy:
            await policy.synchronise(1)
            fleet.deadly_once = {"g"}
            assert (await ask(pool, "g")).oldest_version == 1
            assert (await ask(pool, "h")).oldest_version == 1
            assert learner.published == [1, 1]

    asyncio.run(run())


def test_trained_weights_are_not_sent_as_the_version_before() -> None:
    async def run() -> None:
        fleet, learner = Fleet(), FakeLearner()
        async with started(fleet, 1) as pool, watched(learner, pool) as policy:
            await policy.synchronise(1)
            step = asyncio.create_task(policy.train([]))
            fleet.deadly_once = {"g"}
            job = asyncio.create_task(ask(pool, "g"))
            await asyncio.sleep(0.05)
            assert pool.stranded
            learner.trains.set()
            await step
            await asyncio.sleep(0.05)
            assert learner.published == [1]
            await policy.synchronise(2)
            assert (await job).oldest_version == 2
            assert learner.published == [1, 2]
            fleet.deadly_once = {"h"}
            assert (await ask(pool, "h")).oldest_version == 2
            assert learner.published == [1, 2, 2]

    asyncio.run(run())


async def _for_ever() -> None:
    await asyncio.Event().wait()


async def _lost(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("lost", [LearnerLost("rank 0"), WeightUpdateFailed("the previous broadcast failed")])
def test_the_watch_hears_of_the_learner_and_of_the_way_of_its_weights(lost) -> None:
    of_learner = isinstance(lost, LearnerLost)
    learner = SimpleNamespace(watch=lambda: _lost(lost) if of_learner else _for_ever())
    policy = SimpleNamespace(resend=lambda: _for_ever() if of_learner else _lost(lost))
    engines = Engines(pool=None, rewards=None, judge=None, learner=learner, policy=policy)
    with pytest.raises(type(lost), match=str(lost)):
        asyncio.run(engines.watch())
