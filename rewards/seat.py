"""One reward actor's place: the actor may be replaced, the place stays and brings a new actor up to date.

An actor at work is asked for its progress now and then, so that one that stands still is told from one that has much to
do: the limit holds for the time without progress, whatever was sent.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from conf.errors import QuorumError
from rewards.memory_store import VerifiedTrace
from rewards.port import ActorCannotStart, ActorFailed, ActorGone, ActorPort, PortFactory
from rewards.scorer import ScorerStats

START_S = 180.0
"""Longest wait for a new actor's first answer."""
START_LIMIT = 3
CLOSE_S = 5.0
FIRST_LOOK_S = 1.0
LOOKS = 4
"""Times that an actor at work is looked at within its limit."""


class RewardServerLost(QuorumError):
    """No reward actor can be kept alive: the run cannot score any more."""


class ActorLost(Exception):
    """This call's actor died, stood still for too long or failed inside; the work can be sent again."""


@dataclass(slots=True)
class Memory:
    """What a new actor must know: the file loaded last, and the traces that the actors' stores took since.

    Bound: beside the batches that not every actor has answered for, it holds no trace that an actor's store does not
    hold, and each trace once. Near-duplicates, which a store refuses, and traces that come again are forgotten. Batches
    keep their order and their limits, so that a new actor's store has the same traces under the same numbers.
    """

    base: str | None = None
    log: list[Sequence[VerifiedTrace]] = field(default_factory=list)
    _settled: set[VerifiedTrace] = field(default_factory=set)
    """In `log`, apart from batches under way."""

    def begin(self, base: str) -> None:
        """Forgets the log: a file has everything."""
        self.base, self.log, self._settled = base, [], set()

    def settle(self, batch: Sequence[VerifiedTrace], held: Sequence[VerifiedTrace]) -> None:
        """Every actor has answered for a batch of the log: of its traces the stores hold `held`."""
        place = next((number for number, other in enumerate(self.log) if other is batch), None)
        if place is None:  # `begin` came in between
            return
        new = [trace for trace in held if trace not in self._settled]
        self._settled.update(new)
        self.log[place : place + 1] = [new] if new else []


class Seat:
    """Starts its actor when first called. Calls wait for each other."""

    def __init__(self, actors: PortFactory, memory: Memory, *, timeout_s: float, note: Callable[[str], None]) -> None:
        """`timeout_s`: longest time without progress. `note`: is told of every actor that is replaced."""
        self.restarts = 0
        self.stats: ScorerStats | None = None
        """As of the actor's last answer."""
        self._actors = actors
        self._memory = memory
        self._timeout_s = timeout_s
        self._note = note
        self._actor: ActorPort | None = None
        self._serving = False
        """The actor has answered: it may have executors to end."""
        self._lock = asyncio.Lock()

    async def call(self, method: str, *arguments: object) -> Any:
        """One call of the actor. Raises ActorLost, after which the next call meets a new actor, and
        RewardServerLost."""
        async with self._lock:
            actor = await self._ready()
            try:
                return await _answer(actor, method, *arguments, limit_s=self._timeout_s)
            except ActorFailed as error:
                raise ActorLost(f"the reward actor failed in {method}: {error}") from error
            except (ActorGone, TimeoutError) as error:
                self.discard()
                self.restarts += 1
                lost = f"the reward actor was lost in {method}: {error}"
                self._note(f"{lost}; it is replaced")
                raise ActorLost(lost) from error

    def discard(self) -> None:
        """Ends the actor's process, and with it its executors."""
        if self._actor is not None:
            self._actor.kill()
            self._actor, self._serving = None, False

    async def close(self) -> None:
        """Lets the actor end its executors, then ends it; one that is still starting has none."""
        if self._actor is not None:
            if self._serving:
                try:
                    await _answer(self._actor, "close", limit_s=CLOSE_S)
                except (ActorFailed, ActorGone, TimeoutError):
                    pass  # it ends below in any case
            self.discard()

    async def _ready(self) -> ActorPort:
        failures = 0
        while self._actor is None:
            self._actor = self._actors()
            try:
                await self._restore(self._actor)
                self._serving = True
            except (ActorFailed, ActorGone, TimeoutError) as error:
                self.discard()
                failures += 1
                if failures == START_LIMIT or isinstance(error, ActorCannotStart):
                    raise RewardServerLost(f"the reward server does not start: {error}") from error
        return self._actor

    async def _restore(self, actor: ActorPort) -> None:
        if self._memory.base is not None:
            await _answer(actor, "load", self._memory.base, limit_s=START_S)
        for traces in [*self._memory.log] or [[]]:
            await _answer(actor, "remember", traces, limit_s=START_S)


async def _answer(actor: ActorPort, method: str, *arguments: object, limit_s: float) -> Any:
    """The call's answer. Raises TimeoutError after `limit_s` without progress, and what the port raises."""
    now = asyncio.get_running_loop().time
    answer = asyncio.ensure_future(actor.call(method, *arguments))
    seen, since, pause = -1, now(), min(FIRST_LOOK_S, limit_s / LOOKS)
    try:
        while True:
            await asyncio.wait({answer}, timeout=pause)
            if answer.done():
                return answer.result()
            progress = await _look(actor, answer, since + limit_s - now())
            if progress is not None and progress > seen:
                seen, since = progress, now()
            left = since + limit_s - now()
            if left <= 0 and not answer.done():
                raise TimeoutError(f"it got nothing done for {limit_s:g} s")
            pause = min(limit_s / LOOKS, max(0.0, left))
    finally:
        answer.cancel()
        await asyncio.gather(answer, return_exceptions=True)


async def _look(actor: ActorPort, answer: "asyncio.Future[Any]", limit_s: float) -> int | None:
    """The actor's progress; None when the call's answer came first, or nothing within the limit."""
    look = asyncio.ensure_future(actor.progress())
    try:
        await asyncio.wait({answer, look}, timeout=max(0.0, limit_s), return_when=asyncio.FIRST_COMPLETED)
        return look.result() if look.done() and not answer.done() else None
    finally:
        look.cancel()
        await asyncio.gather(look, return_exceptions=True)
