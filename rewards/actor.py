"""The Ray actor that holds one Scorer with its own executors, and the client's way to it.

It does one thing at a time, in the order of its calls, and tells its progress meanwhile; rewards/client.py decides who
calls, rewards/seat.py how long it may stand still. The executors end with the actor's process, however it ends: their
stdin closes.
"""

from collections.abc import Awaitable, Sequence
from contextlib import ExitStack
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from conf.schema.reward import RewardConfig
from rewards.builder import open_scorer
from rewards.memory_store import VerifiedTrace
from rewards.port import ActorCannotStart, ActorFailed, ActorGone, PortFactory, Reply
from rewards.ray_failure import cannot_start, reason
from rewards.same_code import check_same_code
from rewards.scorer import ScoreJob

WATCHED = "watched"
"""Concurrency group of the calls that are answered beside the one at work."""
OPTIONS = {"num_cpus": 0, "concurrency_groups": {WATCHED: 1}}


class RewardActor:
    """Plain class, for Ray to wrap."""

    def __init__(self, config: RewardConfig) -> None:
        check_same_code()
        self._resources = ExitStack()
        self._scorer = self._resources.enter_context(open_scorer(config))

    def score_batch(self, jobs: Sequence[ScoreJob]) -> Reply:
        """Scores several groups. Raises what the infrastructure raises."""
        results = self._scorer.score_batch(jobs)
        return Reply(results=results, verified=self._scorer.take_verified(), stats=self._scorer.stats())

    def progress(self) -> int:
        """Scorer.progress; answered beside another call, in the concurrency group WATCHED."""
        return self._scorer.progress()

    def remember(self, traces: Sequence[VerifiedTrace]) -> list[VerifiedTrace]:
        """Adds verified traces to the memory; those of them that it holds afterwards, in their order."""
        self._scorer.remember(traces)
        return self._scorer.held(traces)

    def save(self, path: str) -> bool:
        """Writes the memory to a file; False, and no file, where the component is off."""
        return self._scorer.save(path)

    def load(self, path: str) -> None:
        """Replaces the memory by a file's; nothing where the component is off."""
        self._scorer.load(path)

    def close(self) -> None:
        """Ends the executors."""
        self._resources.close()


def ray_actors(config: RewardConfig) -> PortFactory:
    """Reward actors of the initialised Ray."""
    return lambda: RayActorPort(config)


class RayActorPort:
    """One actor life, seen from the driver. The process starts at once; the first call waits for it."""

    def __init__(self, config: RewardConfig) -> None:
        actor: Any = ray.remote(**OPTIONS)(RewardActor).remote(config)
        self._actor = actor
        self._progress = actor.progress.options(concurrency_group=WATCHED)
        self._methods = {
            "score_batch": actor.score_batch,
            "remember": actor.remember,
            "save": actor.save,
            "load": actor.load,
            "close": actor.close,
        }

    async def call(self, method: str, *arguments: object) -> Any:
        return await _answer(self._methods[method], *arguments)

    async def progress(self) -> int:
        return int(await _answer(self._progress))

    def kill(self) -> None:
        if ray.is_initialized():
            ray.kill(self._actor, no_restart=True)


async def _answer(method: Any, *arguments: object) -> Any:
    """The result of an actor's method; Ray's exceptions become ours."""
    if not ray.is_initialized():
        raise ActorGone("Ray has been shut down")
    answer: Awaitable[Any] = method.remote(*arguments)
    try:
        return await answer
    except RayTaskError as error:
        raise ActorFailed(reason(error)) from error
    except RayError as error:
        raise (ActorCannotStart if cannot_start(error) else ActorGone)(reason(error)) from error
