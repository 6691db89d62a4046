"""What an actor that cannot start says, and that it is told from one that was lost."""

import asyncio
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, ActorUnschedulableError, RayError, RayTaskError, RuntimeEnvSetupError

from conf.errors import first_line
from rewards.port import ActorCannotStart, ActorGone
from rewards.ray_failure import cannot_start, reason
from rewards.seat import Memory, RewardServerLost, Seat
from rollout.errors import WorkerDied, WorkerNotStarted
from rollout.worker import RayWorkerPort
from trainer.learner.errors import LearnerLost, LearnerNotStarted
from trainer.learner.group import _one

TRACE = """\x1b[36mray::A.__init__()\x1b[39m (pid=1, ip=192.0.2.2, actor_id=8e, repr=<A object at 0x7f>)
           ^^^^^^^^
  File "/x/rank.py", line 8, in __init__
    from nowhere import missing
    ^^^^^^^^^^^^^^^^^^^^^^^^^^^
"""
PYDANTIC = "1 validation error for ModelConfig\n  Value error, the head counts differ [type=value_error]\n"
PYDANTIC += "    For further information visit https://errors.pydantic.dev/2.12/v/value_error"


def in_constructor(raised: str) -> ActorDiedError:
    return ActorDiedError(RayTaskError("A.__init__", TRACE + raised, ImportError()))


def lost() -> ActorDiedError:
    error = ActorDiedError()
    error.error_msg = "The actor died.\n\tclass_name: A\n\tpid: 7\nIts worker process has died: exit code 3."
    return error


def environment() -> RuntimeEnvSetupError:
    return RuntimeEnvSetupError("could not be made\n" + TRACE + "ConnectionError: refused")


@pytest.mark.parametrize(
    ("error", "said", "hopeless"),
    [
        (in_constructor("ImportError: No module named nowhere"), "ImportError: No module named nowhere", True),
        (
            in_constructor(f"pydantic.ValidationError: {PYDANTIC}"),
            "pydantic.ValidationError: 1 validation error for ModelConfig Value error, the head counts differ "
            "[type=value_error]",
            True,
        ),
        (environment(), "ConnectionError: refused", True),
        (lost(), "The actor died. Its worker process has died: exit code 3.", False),
    ],
)
def test_the_reason_is_what_the_code_raised_and_some_reasons_are_final(error, said, hopeless):
    assert reason(error) == said
    assert cannot_start(error) is hopeless


async def raises(error: RayError) -> None:
    raise error


def test_a_rank_that_cannot_start_is_not_lost():
    with pytest.raises(LearnerNotStarted, match="learner rank 1 cannot start: ImportError: nowhere"):
        asyncio.run(_one(1, "starting", raises(in_constructor("ImportError: nowhere"))))
    with pytest.raises(LearnerNotStarted, match="ConnectionError: refused"):
        asyncio.run(_one(0, "starting", raises(environment())))
    with pytest.raises(LearnerNotStarted, match="no node has 9 GPUs"):
        asyncio.run(_one(0, "starting", raises(ActorUnschedulableError("no node has 9 GPUs"))))
    with pytest.raises(LearnerLost, match="rank 0 was lost while training: The actor died"):
        asyncio.run(_one(0, "training", raises(lost())))


def test_a_rollout_worker_that_cannot_start_has_not_lost_its_weights():
    port = RayWorkerPort(Any, {"num_cpus": 1}, name="rollout worker 0")  # type: ignore[arg-type]
    for error in (environment(), in_constructor("MemoryError: 12 GiB")):
        with pytest.raises(WorkerNotStarted, match=r"rollout worker 0 cannot start: (ConnectionError|MemoryError)"):
            asyncio.run(port._answer(raises(error), None, None))
    with pytest.raises(WorkerDied, match="rollout worker 0 died: The actor died"):
        asyncio.run(port._answer(raises(lost()), None, None))
    told = RayTaskError("start", "", ValueError("1 validation error for M\n a: b"))
    with pytest.raises(WorkerDied, match="raised ValueError: 1 validation error for M a: b"):
        asyncio.run(port._answer(raises(told), None, None))


class Refusing:
    """A reward actor whose every call ends in `error`."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def call(self, method: str, *arguments: object) -> Any:
        raise self._error

    async def progress(self) -> int:
        return 0

    def kill(self) -> None:
        pass


@pytest.mark.parametrize(("error", "starts"), [(ActorCannotStart("ImportError: x"), 1), (ActorGone("killed"), 3)])
def test_a_reward_actor_that_cannot_start_is_tried_once(error, starts):
    made: list[Refusing] = []

    def factory() -> Refusing:
        made.append(Refusing(error))
        return made[-1]

    async def call() -> None:
        await Seat(factory, Memory(), timeout_s=5.0, note=lambda text: None).call("remember", [])

    with pytest.raises(RewardServerLost, match=f"the reward server does not start: {error}"):
        asyncio.run(call())
    assert len(made) == starts


def test_a_pydantic_error_that_comes_as_text_is_no_bare_count():
    told = first_line(RuntimeError(PYDANTIC), otherwise="nothing")
    assert told == "1 validation error for ModelConfig Value error, the head counts differ [type=value_error]"
    assert first_line(RuntimeError("one\ntwo"), otherwise="nothing") == "one"
