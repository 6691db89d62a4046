"""The training loop: fill the buffer, take a batch in stream order, train, publish the weights, free the slots.

There is one loop for every `max_staleness`: with 0 nothing is admitted while the learner works; with s > 0 generation
runs up to s policy versions ahead and weights change under requests in flight. Every wait has a limit; when it is
exceeded, the error says who waits for whom. The first infrastructure failure ends the loop with its cause.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from conf.errors import QuorumError
from conf.schema.algo import AlgoConfig
from trainer.batch.filter import FilteredGroups, filter_groups
from trainer.batch.sequences import training_sequences
from trainer.carriers import ScoredGroup, TrainingSequence
from trainer.pipeline.buffer import GroupBuffer, Stale
from trainer.pipeline.clock import StageClock
from trainer.pipeline.producer import Produced, Producer


class PipelineStalled(QuorumError):
    """No progress within pipeline.stall_timeout_s."""


class TooManyUnscorable(QuorumError):
    """The infrastructure failed to score more completions than reward.max_unscorable_share allows."""


class Policy(Protocol):
    """What trains on a batch and brings the new weights to the engines; returns metrics by registered key."""

    async def train(self, sequences: Sequence[TrainingSequence]) -> dict[str, float]: ...

    async def synchronise(self, version: int) -> dict[str, float]: ...


class RewardMemory(Protocol):
    async def commit(self) -> None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class StepOutcome:
    """What one optimizer step did; everything the records need."""

    step: int
    version: int
    """Policy version that the step's update made."""
    trained_version: int
    """Policy version that the groups were compared with when they were taken."""
    groups: tuple[ScoredGroup, ...]
    filtered: FilteredGroups
    stale: tuple[ScoredGroup, ...]
    learner: dict[str, float]
    sync: dict[str, float]
    queue_s: float
    """Mean seconds a scored group waited for the learner."""
    in_flight: int


class TrainingLoop:
    def __init__(
        self,
        *,
        buffer: GroupBuffer[Produced],
        producer: Producer,
        policy: Policy,
        memory: RewardMemory,
        clock: StageClock,
        algo: AlgoConfig,
        stall_timeout_s: float,
        max_unscorable_share: float,
        last_position: int,
    ) -> None:
        """`last_position`: positions from here on are never admitted (the run's steps are over)."""
        self._buffer = buffer
        self._producer = producer
        self._policy = policy
        self._memory = memory
        self._clock = clock
        self._algo = algo
        self._stall_timeout_s = stall_timeout_s
        self._max_unscorable_share = max_unscorable_share
        self._last_position = last_position
        self._tasks: set[asyncio.Task[Produced]] = set()
        self._admitted = buffer.consumed
        self._attempts: dict[int, int] = {}

    async def steps(self, first: int, last: int) -> AsyncIterator[StepOutcome]:
        """Optimizer steps first + 1 ... last, yielded after each weight update."""
        try:
            for step in range(first + 1, last + 1):
                yield await self._step(step)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _step(self, step: int) -> StepOutcome:
        in_flight = self._buffer.in_flight
        batch, stale = await self._collect()
        taken = time.monotonic()
        groups = [entry.scored for entry in batch]
        self._check_scorable(groups)
        filtered = filter_groups(groups, drop_zero_variance=self._algo.drop_zero_variance)
        trained_version = self._buffer.version
        learner: dict[str, float] = {}
        sync: dict[str, float] = {}
        version = trained_version
        sequences = training_sequences(filtered.kept, self._algo)
        if any(not sequence.masked for sequence in sequences):
            with self._clock.stage("train"):
                learner = await self._policy.train(sequences)
            version += 1
            with self._clock.stage("sync"):
                sync = await self._policy.synchronise(version)
        await self._memory.commit()
        self._buffer.advance(version)
        return StepOutcome(
            step=step,
            version=version,
            trained_version=trained_version,
            groups=tuple(groups),
            filtered=filtered,
            stale=tuple(entry.item.scored for entry in stale),
            learner=learner,
            sync=sync,
            queue_s=sum(taken - entry.finished for entry in batch) / len(batch),
            in_flight=in_flight,
        )

    async def _collect(self) -> tuple[list[Produced], list[Stale[Produced]]]:
        """Admits what fits and waits until the next batch is complete and young enough."""
        start = time.monotonic()
        all_stale: list[Stale[Produced]] = []
        while True:
            self._admit()
            while self._buffer.waiting_for():
                await self._wait_for_one()
            batch, stale = self._buffer.take()
            if not stale:
                break
            all_stale += stale
            for old in stale:
                self._start(old.position)
        for entry in batch:
            del self._attempts[entry.position]
        generated = max(start, *(entry.generated for entry in batch))
        finished = max(generated, *(entry.finished for entry in batch))
        self._clock.add("generate", generated - start)
        self._clock.add("score", finished - generated)
        return batch, all_stale

    def _admit(self) -> None:
        while self._admitted < self._last_position and self._buffer.can_admit():
            self._start(self._buffer.admit())
            self._admitted += 1

    def _start(self, position: int) -> None:
        attempt = self._attempts.get(position, -1) + 1
        self._attempts[position] = attempt
        self._tasks.add(asyncio.create_task(self._producer.produce(position, attempt), name=f"group {position}"))

    async def _wait_for_one(self) -> None:
        done, self._tasks = await asyncio.wait(
            self._tasks, timeout=self._stall_timeout_s, return_when=asyncio.FIRST_COMPLETED
        )
        if not done:
            raise PipelineStalled(
                f"no group finished for {self._stall_timeout_s:g} s: the learner waits for "
                f"{len(self._buffer.waiting_for())} groups; {len(self._producer.generating)} wait for the rollout "
                f"workers, {len(self._producer.scoring)} for the reward server"
            )
        for task in done:
            produced = task.result()
            self._buffer.complete(produced.position, produced)

    def _check_scorable(self, groups: Sequence[ScoredGroup]) -> None:
        results = [result for group in groups for result in group.results]
        lost = [result for result in results if result.status == "unscorable"]
        if len(lost) > self._max_unscorable_share * len(results):
            raise TooManyUnscorable(
                f"{len(lost)} of {len(results)} completions of one step could not be scored "
                f"(reward.max_unscorable_share={self._max_unscorable_share:g}); the last reason: {lost[-1].error}"
            )
