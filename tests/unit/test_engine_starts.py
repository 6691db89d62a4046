"""The order in which a run's parts start, and its checkpoints' turns."""

import asyncio

import pytest

from conf.schema.stages import CheckpointConfig, ClusterConfig
from rollout.errors import EngineStartFailed
from trainer.engines import _start_learner
from trainer.job import checkpoint_due
from trainer.learner.group import LearnerGroup


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
