"""The order in which a run's parts start, and its checkpoints' turns."""

import asyncio
import time
from pathlib import Path
from typing import ClassVar

import pytest

import trainer.learner.group
import trainer.services
from conf.load import load
from conf.schema.root import TrainConfig
from conf.schema.stages import CheckpointConfig, ClusterConfig
from rewards.seat import Memory, Seat
from rollout.errors import EngineStartFailed
from trainer.job import checkpoint_due
from trainer.learner.group import LearnerGroup
from trainer.services import _start_learner


class Learner:
    def __init__(self) -> None:
        self.started = False

    async def start(self) -> None:
        self.started = True


async def learner_beside(pool: asyncio.Future[object] | None, outcome: BaseException | object) -> tuple[bool, bool]:
    """Whether the learner had started before the pool's outcome, and after it."""
    learner = Learner()
    start = asyncio.ensure_future(_start_learner(learner, None, after=pool))
    await asyncio.sleep(0.01)
    before = learner.started
    if pool is not None:
        pool.set_exception(outcome) if isinstance(outcome, BaseException) else pool.set_result(outcome)
    await start
    return before, learner.started


def test_a_learner_on_a_shared_device_starts_when_the_engine_has_measured_its_memory() -> None:
    async def run() -> None:
        future = asyncio.get_running_loop().create_future
        assert await learner_beside(future(), object()) == (False, True)
        assert await learner_beside(future(), EngineStartFailed("no")) == (False, False)
        assert await learner_beside(None, object()) == (True, True)

    asyncio.run(run())


def test_a_learner_that_never_started_closes() -> None:
    asyncio.run(LearnerGroup(None, ClusterConfig()).close())


class Part:
    """A reward client or a learner whose start takes a while; what happens to it is written down."""

    events: ClassVar[list[str]] = []

    def __init__(self, *_: object, **__: object) -> None:
        self.name = type(self).__name__

    async def start(self) -> None:
        self.events.append("start")
        try:
            await asyncio.sleep(0.2)
            self.events.append("started late")
        except asyncio.CancelledError:
            self.events.append("cancelled")
            raise

    async def close(self) -> None:
        await asyncio.sleep(0)
        self.events.append("close")


def test_whoever_interrupts_the_starts_finds_none_under_way_while_the_parts_are_closed(monkeypatch) -> None:
    async def start_pool(*_: object) -> Part:
        await Part().start()
        return Part()

    Part.events.clear()
    monkeypatch.setattr(trainer.services, "RewardClient", Part)
    monkeypatch.setattr(trainer.services, "LearnerGroup", Part)
    monkeypatch.setattr(trainer.services, "_start_pool", start_pool)

    async def run() -> None:
        config = load(TrainConfig, "train", ["experiment=quickstart"])
        async with trainer.services.engines(config, Path("policy"), None, lambda text: None):
            raise AssertionError("interrupted before")

    async def interrupted() -> None:
        starting = asyncio.ensure_future(run())
        await asyncio.sleep(0.05)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        await asyncio.sleep(0.3)

    asyncio.run(interrupted())
    # Engines, learner, rewards and judge.
    assert Part.events == ["start"] * 4 + ["cancelled"] * 4 + ["close"] * 3


class StartingActor:
    """A process that does not answer yet."""

    killed = False

    async def call(self, method: str, *arguments: object) -> None:
        await asyncio.sleep(60)

    async def progress(self) -> int:
        await asyncio.sleep(60)
        return 0

    def kill(self) -> None:
        self.killed = True


def test_a_reward_actor_that_is_still_starting_is_not_waited_for() -> None:
    actor = StartingActor()

    async def run() -> float:
        seat = Seat(lambda: actor, Memory(), timeout_s=60.0, note=lambda text: None)
        call = asyncio.ensure_future(seat.call("remember", []))
        await asyncio.sleep(0.01)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        begun = time.monotonic()
        await seat.close()
        return time.monotonic() - begun

    assert asyncio.run(run()) < 1.0
    assert actor.killed


def test_a_learner_that_is_still_starting_is_not_waited_for(monkeypatch) -> None:
    killed = []
    monkeypatch.setattr(trainer.learner.group.ray, "kill", killed.append)

    async def run() -> None:
        group = LearnerGroup(None, ClusterConfig())
        group._actors = ["rank 0", "rank 1"]  # has no method to call
        await group.close()

    asyncio.run(run())
    assert killed == ["rank 0", "rank 1"]


@pytest.mark.parametrize(
    ("settings", "due"),
    [
        ({"every": 2}, [2, 4, 5]),
        ({"every": 2, "last": False}, [2, 4]),
        ({"every": 0}, [5]),
        ({"every": 0, "last": False}, []),
    ],
)
def test_checkpoints_come_in_their_turn_and_at_the_end(settings: dict[str, object], due: list[int]) -> None:
    config = CheckpointConfig.model_validate(settings)
    assert [step for step in range(1, 6) if checkpoint_due(config, step, last=step == 5)] == due
