"""The training loop: fill the buffer, take a batch in stream order, train, publish the weights, free the slots.

There is one loop for every `max_staleness`: with 0 nothing is admitted while the learner works; with s > 0 generation
runs up to s policy versions ahead and weights change under requests in flight. Every wait has a limit; when it is
exceeded, the error says who waits for whom. The first infrastructure failure ends the loop with its cause.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from conf.errors import QuorumError
from rollout.carriers import Prompt, ScoredGroup
from trainer.batch.batcher import Batcher
from trainer.batch.filter import FilteredGroups
from trainer.carriers import SkippedUpdates, TrainingSequence
from trainer.pipeline.buffer import GroupBuffer, Stale
from trainer.pipeline.clock import StageClock, now
from trainer.pipeline.fresh import FreshCheck
from trainer.pipeline.producer import Produced, Producer
from trainer.preemption import Preemption


class PipelineStalled(QuorumError):
    """No progress within pipeline.stall_timeout_s."""


class TooManyUnscorable(QuorumError):
    """The infrastructure failed to score more completions than reward.max_unscorable_share allows. What the data or the
    policy caused is masked and counted, and ends no run."""


class Policy(Protocol):
    """What trains on a batch and brings the new weights to the engines; returns metrics by registered key."""

    async def train(self, sequences: Sequence[TrainingSequence]) -> dict[str, float]: ...

    async def skipped(self, sequences: Sequence[TrainingSequence]) -> SkippedUpdates:
        """What the last `train`, on `sequences`, has skipped; asked for where its metrics count skipped updates."""
        ...

    async def reference_kl(self, sequences: Sequence[TrainingSequence]) -> list[float]:
        """Estimated divergence from the reference policy, summed over each sequence, nats."""
        ...

    async def synchronise(self, version: int) -> dict[str, float]: ...


class TaskHistory(Protocol):
    """Who wants to know how the tasks went; the task stream."""

    def record(self, position: int, correct: Sequence[bool]) -> None: ...


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
    sequences: tuple[TrainingSequence, ...]
    """What the learner was given; group_index counts `filtered.kept`."""
    stale: tuple[ScoredGroup, ...]
    learner: dict[str, float]
    skipped: SkippedUpdates
    sync: dict[str, float]
    resampled: int
    """Groups drawn in place of others that teach nothing."""
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
        history: TaskHistory,
        clock: StageClock,
        preemption: Preemption,
        batcher: Batcher,
        stall_timeout_s: float,
        max_unscorable_share: float,
        fresh: FreshCheck | None = None,
        states: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        """`fresh`: looks at the engines' weights where a batch cannot tell them (None: every batch can). `states`: what
        each part is doing, in words, for the report of a stall."""
        self._buffer = buffer
        self._producer = producer
        self._policy = policy
        self._memory = memory
        self._history = history
        self._clock = clock
        self._preemption = preemption
        self._batcher = batcher
        self._stall_timeout_s = stall_timeout_s
        self._max_unscorable_share = max_unscorable_share
        self._fresh = fresh
        self._states = states
        self._tasks: set[asyncio.Task[Produced]] = set()
        # Tasks announce themselves: asyncio.wait would go through all groups in flight for each that ends.
        self._finished: asyncio.Queue[asyncio.Task[Produced]] = asyncio.Queue()
        self._quota = 0
        self._teaching: set[int] = set()
        self._attempts: dict[int, int] = {}

    async def steps(self, first: int, last: int) -> AsyncIterator[StepOutcome]:
        """Optimizer steps first + 1 ... last, yielded after each weight update."""
        # No more groups are begun than these steps need.
        self._quota = (last - first) * self._buffer.batch_size
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
        taken = now()
        groups = [entry.scored for entry in batch]
        self._check_scorable(groups)
        trained_version = self._buffer.version
        learner: dict[str, float] = {}
        skipped = SkippedUpdates()
        sync: dict[str, float] = {}
        version = trained_version
        kl = await self._reference_kl(groups)
        filtered = self._batcher.filter(groups, kl)
        sequences = self._batcher.sequences(groups, filtered, version=trained_version, kl=kl)
        if any(not sequence.masked for sequence in sequences):
            with self._clock.stage("train"):
                learner = await self._train(sequences, groups[0].group.prompt)
                if learner.get("policy/skipped_updates"):
                    skipped = await self._policy.skipped(sequences)
            if kl is not None:
                learner["policy/kl_reference"] = _mean_by_token(groups, kl)
            version += 1
            with self._clock.stage("sync"):
                sync = await self._policy.synchronise(version)
        await self._memory.commit()
        for entry in batch:
            scored = [result.correct for result in entry.scored.results if result.status == "scored"]
            self._history.record(entry.position, scored)
        self._buffer.advance(version)
        return StepOutcome(
            step=step,
            version=version,
            trained_version=trained_version,
            groups=tuple(groups),
            filtered=filtered,
            sequences=tuple(sequences),
            stale=tuple(entry.item.scored for entry in stale),
            learner=learner,
            skipped=skipped,
            sync=sync,
            resampled=len(groups) - self._buffer.batch_size,
            queue_s=sum(taken - entry.finished for entry in batch) / len(batch),
            in_flight=in_flight,
        )

    async def _train(self, sequences: Sequence[TrainingSequence], prompt: Prompt) -> dict[str, float]:
        checked: dict[str, float] = {}
        if self._fresh is not None:
            checked = await self._fresh.before(sequences, prompt, version=self._buffer.version)
        return checked | await self._policy.train(sequences)

    async def _reference_kl(self, groups: Sequence[ScoredGroup]) -> list[list[float]] | None:
        """Of every completion of every group, those that will be dropped included: their rewards are compared, and
        where the batch is what advantages are scaled by, they count. None where the reward has no KL term."""
        scored = any(result.status == "scored" for group in groups for result in group.results)
        if not self._batcher.needs_reference_kl or not scored:
            return None
        with self._clock.stage("train"):
            values = iter(await self._policy.reference_kl(self._batcher.all_sequences(groups)))
        return [[next(values) for _ in group.results] for group in groups]

    async def _collect(self) -> tuple[list[Produced], list[Stale[Produced]]]:
        """Admits what fits and waits until the next batch is complete and young enough."""
        start = now()
        # The next batch may be complete: then nothing below waits.
        await self._preemption.unless(asyncio.sleep(0))
        all_stale: list[Stale[Produced]] = []
        while True:
            self._fill()
            # Looking at the whole batch costs time, and it cannot be complete before as many groups as it lacks are.
            while missing := len(self._buffer.waiting_for()):
                while missing > 0:
                    missing -= await self._wait_for_some()
                    self._fill()
            batch, stale = self._buffer.take()
            if not stale:
                break
            all_stale += stale
            for old in stale:
                self._start(old.position)
        self._teaching.clear()
        for entry in batch:
            del self._attempts[entry.position]
        generated = max(start, *(entry.generated for entry in batch))
        finished = max(generated, *(entry.finished for entry in batch))
        self._clock.add("generate", start, generated)
        self._clock.add("score", generated, finished)
        for entry in batch:
            self._clock.group(entry.position, entry.started, entry.generated, entry.finished)
        return batch, all_stale

    def _fill(self) -> None:
        """Rejects groups that teach nothing, where they are to be replaced, and admits what fits."""
        while (position := self._teaching_nothing()) is not None:
            self._buffer.reject(position)
            self._quota += 1
        while self._quota > 0 and self._buffer.can_admit():
            self._quota -= 1
            self._start(self._buffer.admit())

    def _teaching_nothing(self) -> int | None:
        """A completed group of the next batch that may be replaced; every rejection brings others into that batch."""
        if not self._batcher.resamples or not self._buffer.can_reject():
            return None
        for position, entry in self._buffer.ready():
            if position not in self._teaching:
                if not self._batcher.teaches(entry.scored):
                    return position
                self._teaching.add(position)
        return None

    def _start(self, position: int) -> None:
        attempt = self._attempts.get(position, -1) + 1
        self._attempts[position] = attempt
        task = asyncio.create_task(self._producer.produce(position, attempt), name=f"group {position}")
        task.add_done_callback(self._finished.put_nowait)
        self._tasks.add(task)

    async def _wait_for_some(self) -> int:
        """Waits for a group and stores it with all others that are finished by then; their number."""
        wait = asyncio.wait_for(self._finished.get(), self._stall_timeout_s)
        try:
            done = [await self._preemption.unless(wait)]
        except TimeoutError:
            states = "".join(f"; {part}: {state}" for part, state in self._states().items())
            raise PipelineStalled(
                f"no group finished for {self._stall_timeout_s:g} s: the learner waits for "
                f"{len(self._buffer.waiting_for())} groups; {len(self._producer.generating)} wait for the rollout "
                f"workers, {len(self._producer.scoring)} for the reward server{states}"
            ) from None
        while not self._finished.empty():
            done.append(self._finished.get_nowait())
        self._tasks.difference_update(done)
        for task in done:
            produced = task.result()
            self._buffer.complete(produced.position, produced)
        return len(done)

    def _check_scorable(self, groups: Sequence[ScoredGroup]) -> None:
        results = [result for group in groups for result in group.results]
        lost = [result for result in results if result.lost]
        if len(lost) > self._max_unscorable_share * len(results):
            raise TooManyUnscorable(
                f"{len(lost)} of {len(results)} completions of one step could not be scored by the infrastructure "
                f"(reward.max_unscorable_share={self._max_unscorable_share:g}); the last reason: {lost[-1].error}"
            )


def _mean_by_token(groups: Sequence[ScoredGroup], sums: Sequence[Sequence[float]]) -> float:
    """`sums`: of each completion, over its tokens."""
    tokens = sum(len(completion.token_ids) for group in groups for completion in group.group.completions)
    return sum(map(sum, sums)) / tokens
