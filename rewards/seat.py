"""One reward actor's place: the actor may be replaced, the place stays and brings a new actor up to date."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError, RayTaskError

from conf.errors import QuorumError
from conf.schema.reward import RewardConfig
from rewards.actor import RewardActor
from rewards.memory_store import VerifiedTrace
from rewards.scorer import ScorerStats

START_S = 180.0
"""Longest wait for a new actor's first answer."""
START_LIMIT = 3


class RewardServerLost(QuorumError):
    """No reward actor can be kept alive: the run cannot score any more."""


class ActorLost(Exception):
    """This call's actor died, was silent for too long or failed inside; the work can be sent again."""


@dataclass(slots=True)
class Memory:
    """What a new actor must know: the file loaded last, and the traces remembered since."""

    base: str | None = None
    log: list[Sequence[VerifiedTrace]] = field(default_factory=list)


class Seat:
    """Starts its actor when first called. Not for concurrent calls."""

    def __init__(self, config: RewardConfig, options: Mapping[str, Any], memory: Memory) -> None:
        self.restarts = 0
        self.stats: ScorerStats | None = None
        """As of the actor's last answer."""
        self._config = config
        self._options = dict(options)
        self._memory = memory
        self._actor: ActorHandle[RewardActor] | None = None
        self._lock = asyncio.Lock()

    async def call(self, method: str, *arguments: object, timeout_s: float | None = None) -> Any:
        """One call of the actor. Raises ActorLost, after which the next call meets a new actor, and
        RewardServerLost."""
        async with self._lock:
            actor = await self._ready()
            try:
                return await self._answer(
                    actor, method, *arguments, timeout_s=timeout_s or self._config.server.timeout_s
                )
            except RayTaskError as error:
                raise ActorLost(f"the reward actor failed in {method}: {_first_line(error)}") from error
            except (RayError, TimeoutError) as error:
                # The actor died, is silent, or its node went with the answer.
                self.discard()
                self.restarts += 1
                raise ActorLost(f"the reward actor was lost in {method}: {_first_line(error)}") from error

    def discard(self) -> None:
        """Ends the actor's process, and with it its executors."""
        if self._actor is not None:
            ray.kill(self._actor, no_restart=True)
            self._actor = None

    async def close(self) -> None:
        """Lets the actor end its executors, then ends it."""
        if self._actor is not None and ray.is_initialized():
            try:
                await self._answer(self._actor, "close", timeout_s=5.0)
            except (RayError, TimeoutError):
                pass  # it ends below in any case
            self.discard()

    async def _ready(self) -> "ActorHandle[RewardActor]":
        failures = 0
        while self._actor is None:
            self._actor = ray.remote(RewardActor).options(**self._options).remote(self._config)
            try:
                await self._restore(self._actor)
            except (RayError, TimeoutError) as error:
                self.discard()
                failures += 1
                if failures == START_LIMIT:
                    raise RewardServerLost(f"the reward server does not start: {_first_line(error)}") from error
        return self._actor

    async def _restore(self, actor: "ActorHandle[RewardActor]") -> None:
        if self._memory.base is not None:
            await self._answer(actor, "load", self._memory.base, timeout_s=START_S)
        for traces in [*self._memory.log] or [[]]:
            await self._answer(actor, "remember", traces, timeout_s=START_S)

    @staticmethod
    async def _answer(actor: "ActorHandle[RewardActor]", method: str, *arguments: object, timeout_s: float) -> Any:
        return await asyncio.wait_for(getattr(actor, method).remote(*arguments), timeout_s)


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__).strip()[:300]
