"""How the client talks to one reward actor, whatever carries the calls. Over Ray in actor.py, by fakes in tests."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from rewards.carriers import RewardResult
from rewards.memory_store import VerifiedTrace
from rewards.scorer import ScorerStats


class ActorFailed(Exception):
    """The call raised inside the actor, which lives on."""


class ActorGone(Exception):
    """The actor's process has ended, or its node went with the answer."""


class ActorCannotStart(ActorGone):
    """The actor's process cannot be started here: another try would end the same way."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """Results of one call, one tuple a job, with what they verified, and the counters after it."""

    results: list[tuple[RewardResult, ...]]
    verified: list[VerifiedTrace]
    """Traces for the memory. They travel with the results, so that an actor's end takes no trace whose group counts."""
    stats: ScorerStats


class ActorPort(Protocol):
    """One life of one reward actor; a replaced actor is a new port."""

    async def call(self, method: str, *arguments: object) -> Any:
        """A method of RewardActor; calls run one after the other. Raises ActorFailed, ActorGone."""

    async def progress(self) -> int:
        """Grows with whatever the actor gets done; answered beside a call. Raises ActorFailed, ActorGone."""

    def kill(self) -> None:
        """End the process at once; safe to call at any time, and twice."""


PortFactory = Callable[[], ActorPort]
"""Makes a new life of one actor."""
