"""The learner as the driver sees it: all ranks behind one set of awaitable calls.

Who waits for whom: every call waits for all ranks, and the ranks wait for each other inside it; calls are made one
at a time. Every wait has a limit: learner.start_timeout_s for starting, learner.step_timeout_s for anything else.
The first rank that fails ends the wait; the others may then be stuck in a collective operation and are killed by
`close`. `watch` runs beside the calls and hears of a rank that ends between them.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import ray
from ray.exceptions import RayError, RayTaskError

from conf.errors import QuorumError
from conf.schema.stages import ClusterConfig
from rewards.ray_failure import cannot_start, reason
from rollout.weights.handle import EngineLife
from trainer.batch.plan import divide
from trainer.carriers import SkippedUpdates, TrainingSequence
from trainer.learner.actor import LearnerActor, rank_options
from trainer.learner.errors import LearnerError, LearnerLost, LearnerNotStarted, LearnerStalled
from trainer.learner.skipping import skipped_updates
from trainer.learner.spec import LearnerSpec, Rendezvous

_CAUSE_S = 10.0
"""How long a failed rank waits for another one's failure to be heard."""
_CLOSE_S = 10.0
"""How long ranks may take to leave in good order before they are killed."""
_WATCH_S = 2.0
"""Pause between two looks at idle ranks."""


class LearnerGroup:
    """Needs an initialised Ray; `start` before anything else, `close` at the end, whatever happened between."""

    def __init__(self, spec: LearnerSpec, cluster: ClusterConfig) -> None:
        self._spec, self._cluster = spec, cluster
        self._actors: list[Any] = []
        self._started = False
        self.doing = "not started"
        """What the ranks are called for, in words."""

    @property
    def reference(self) -> str:
        """Folder of the policy that a KL term compares with."""
        return str(Path(self._spec.reference or self._spec.policy).resolve())

    async def start(self) -> None:
        """Start all ranks. Raises PolicyNotLoadable, LearnerError, LearnerNotStarted, LearnerLost, LearnerStalled."""
        config = self._spec.learner
        actor = ray.remote(LearnerActor).options(**rank_options(config, self._cluster))
        self._actors = [actor.remote(self._spec) for _ in range(config.ranks)]
        loopback = self._cluster.address is None
        ((address, port),) = await self._gather(
            "starting",
            [self._actors[0].meeting_place.remote(loopback=loopback)],
            config.start_timeout_s,
            "start_timeout_s",
        )
        calls = [
            one.join.remote(
                Rendezvous(
                    rank=rank, world_size=config.ranks, address=address, port=port, timeout_s=config.step_timeout_s
                )
            )
            for rank, one in enumerate(self._actors)
        ]
        await self._gather("starting", calls, config.start_timeout_s, "start_timeout_s")
        self._started = True

    async def watch(self) -> NoReturn:
        """Raises LearnerLost soon after a rank's process has ended, whether or not anybody calls it.

        Has no limit of its own: a rank at work answers when its call is done, and that call has one.
        """
        while True:
            looks = [_one(rank, "waiting for work", a.alive.remote()) for rank, a in enumerate(self._actors)]
            await asyncio.gather(*looks)
            await asyncio.sleep(_WATCH_S)

    async def train(self, sequences: Sequence[TrainingSequence]) -> dict[str, float]:
        """algo.updates_per_step optimizer updates on `sequences`; the step's metrics."""
        places = divide(sequences, updates=self._spec.algo.updates_per_step, ranks=len(self._actors))
        shares = [[[sequences[i] for i in update] for update in rank] for rank in places]
        calls = [actor.train.remote(share) for actor, share in zip(self._actors, shares, strict=True)]
        return (await self._step("training", calls))[0]

    async def skipped(self, sequences: Sequence[TrainingSequence]) -> SkippedUpdates:
        """Which of the last step's updates left the weights alone; `sequences` are those of that step."""
        places = divide(sequences, updates=self._spec.algo.updates_per_step, ranks=len(self._actors))
        made = await self._step("telling what was skipped", [actor.made.remote() for actor in self._actors])
        return skipped_updates(sequences, places, made)

    async def logprobs(self, sequences: Sequence[TrainingSequence]) -> list[list[float]]:
        """Log-probability of each completion token under the current policy, nats, in the order of `sequences`."""
        return await self._each(sequences, "log-probabilities", lambda actor: actor.logprobs)

    async def reference_kl(self, sequences: Sequence[TrainingSequence]) -> list[float]:
        """algo.kl.estimator of KL(engine's policy || reference), summed over each completion's tokens, nats."""
        return await self._each(sequences, "reference log-probabilities", lambda actor: actor.reference_kl)

    async def publish(self, version: int, *, engines: Sequence[EngineLife] = ()) -> Any:
        """Offer the current weights as policy `version`; the handle that the rollout pool takes.

        `engines`: RolloutPool.engines.
        """
        return (await self._step("publishing weights", [a.publish.remote(version, engines) for a in self._actors]))[0]

    async def start_trace(self) -> None:
        """Every rank begins to record a torch profile."""
        await self._step("starting a trace", [a.start_trace.remote() for a in self._actors])

    async def stop_trace(self, folder: Path) -> None:
        """Writes `folder`/learner-rank<r>.json; all ranks must see the folder."""
        files = [str(folder.resolve() / f"learner-rank{rank}.json") for rank in range(len(self._actors))]
        await self._step("writing a trace", [a.stop_trace.remote(f) for a, f in zip(self._actors, files, strict=True)])

    async def save(self, folder: Path) -> None:
        """Write `folder`/policy and `folder`/learner; all ranks must see the folder."""
        await self._step("saving", [a.save.remote(str(folder.resolve())) for a in self._actors])

    async def load(self, folder: Path) -> None:
        """Continue from what `save` wrote."""
        await self._step("loading", [a.load.remote(str(folder.resolve())) for a in self._actors])

    async def close(self) -> None:
        """End all ranks; never raises for what they did before. Ranks that are still starting have nothing to leave in
        good order."""
        if self._started:
            with contextlib.suppress(QuorumError):
                await self._gather("closing", [a.close.remote() for a in self._actors], _CLOSE_S, "close")
        for actor in self._actors:
            ray.kill(actor)
        self._actors = []

    async def _each(self, sequences: Sequence[TrainingSequence], what: str, method: Callable[[Any], Any]) -> list[Any]:
        """One value for each sequence, whichever rank computes it."""
        places = [updates[0] for updates in divide(sequences, updates=1, ranks=len(self._actors))]
        calls = [method(a).remote([sequences[i] for i in p]) for a, p in zip(self._actors, places, strict=True)]
        found: list[Any] = [None] * len(sequences)
        for place, values in zip(places, await self._step(what, calls), strict=True):
            for index, value in zip(place, values, strict=True):
                found[index] = value
        return found

    async def _step(self, what: str, calls: Sequence[Awaitable[Any]]) -> list[Any]:
        return await self._gather(what, calls, self._spec.learner.step_timeout_s, "step_timeout_s")

    async def _gather(self, what: str, calls: Sequence[Awaitable[Any]], limit: float, setting: str) -> list[Any]:
        if not calls:  # of a learner that was never started
            return []
        tasks = [asyncio.ensure_future(_one(rank, what, call)) for rank, call in enumerate(calls)]
        self.doing = what
        try:
            done, pending = await asyncio.wait(tasks, timeout=limit, return_when=asyncio.FIRST_EXCEPTION)
            if pending and any(task.exception() for task in done):
                # A rank that lost its partner fails too, and may be heard first: wait for the cause.
                more, pending = await asyncio.wait(pending, timeout=_CAUSE_S, return_when=asyncio.FIRST_EXCEPTION)
                done |= more
            for task in sorted(done, key=_blame):
                task.result()
            if pending:
                late = ", ".join(str(rank) for rank, task in enumerate(tasks) if task in pending)
                raise LearnerStalled(f"learner rank {late} did not finish {what} within learner.{setting}={limit:g} s")
            return [task.result() for task in tasks]
        finally:
            self.doing = "waiting for work"
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def _blame(task: asyncio.Future[Any]) -> int:
    """Of several failures the cause comes first: the others fail because of it."""
    causes = (LearnerNotStarted, LearnerLost)
    return next((place for place, kind in enumerate(causes) if isinstance(task.exception(), kind)), len(causes))


async def _one(rank: int, what: str, call: Awaitable[Any]) -> Any:
    try:
        return await call
    except RayTaskError as error:
        if isinstance(error.cause, QuorumError):
            raise error.cause from None
        raise LearnerError(f"learner rank {rank} failed while {what}: {error.cause!r}") from error
    except RayError as error:
        if cannot_start(error):
            raise LearnerNotStarted(f"learner rank {rank} cannot start: {reason(error)}") from error
        # It died, or its node went with the answer.
        raise LearnerLost(f"learner rank {rank} was lost while {what}: {reason(error)}") from error
