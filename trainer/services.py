"""Starts everything that lives in actors (rollout workers, reward actors, learner ranks) and stops it at the end.

The parts start side by side; on a device that they share the learner waits for the rollout worker, whose engine
measures what memory is free when it starts. If one fails, the others are stopped and its error is raised.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from conf.schema.root import TrainConfig
from conf.schema.stages import EvaluationConfig
from records.checkpoint import Checkpoint
from rewards.actor import ray_actors
from rewards.client import RewardClient
from rollout.pool import RolloutPool
from rollout.weights.handle import SyncReport
from rollout.worker import ray_workers, transfer_backend
from trainer.carriers import SkippedUpdates, TrainingSequence
from trainer.evaluate import judging
from trainer.learner.agreement import difference_limit
from trainer.learner.group import LearnerGroup
from trainer.learner.spec import LearnerSpec
from trainer.weights.builder import sender_factory
from trainer.weights.meeting import NcclMeeting

_RESEND_S = 1.0
"""Pause between two looks at engines that may have lost their weights."""


class LearnerPolicy:
    """The learner with the way of its weights to the engines."""

    def __init__(self, learner: LearnerGroup, pool: RolloutPool) -> None:
        self._learner = learner
        self._pool = pool
        self._turn = asyncio.Lock()
        self._ahead = False

    async def train(self, sequences: Sequence[TrainingSequence]) -> dict[str, float]:
        """One optimizer step; metrics by registered key."""
        async with self._turn:
            self._ahead = True
            return await self._learner.train(sequences)

    async def reference_kl(self, sequences: Sequence[TrainingSequence]) -> list[float]:
        """Estimated divergence from the reference policy, summed over each sequence, nats."""
        async with self._turn:
            return await self._learner.reference_kl(sequences)

    async def skipped(self, sequences: Sequence[TrainingSequence]) -> SkippedUpdates:
        """Which of the last step's updates, trained on `sequences`, left the weights alone."""
        async with self._turn:
            return await self._learner.skipped(sequences)

    async def logprobs(self, sequences: Sequence[TrainingSequence]) -> list[list[float]]:
        """Log-probability of each completion token under the learner's policy, nats."""
        async with self._turn:
            return await self._learner.logprobs(sequences)

    async def synchronise(self, version: int) -> dict[str, float]:
        """Brings every engine to the learner's weights as policy `version`."""
        async with self._turn:
            report = await self._publish(version)
            self._ahead = False
        return {
            "perf/sync_pause_s": report.pause_s,
            "perf/sync_transfer_s": report.transfer_s,
            "perf/sync_resume_s": report.resume_s,
            "async/continued": float(report.in_flight),
            "async/aborted": float(report.aborted),
            **({"async/aborted_tokens_mean": report.aborted_tokens / report.aborted} if report.aborted else {}),
        }

    async def resend(self) -> NoReturn:
        """Publishes the engines' version again whenever none of them holds it any more and none can load it, unless a
        newer one is about to be published. Ends by raising only."""
        while True:
            await asyncio.sleep(_RESEND_S)
            async with self._turn:
                if self._pool.stranded and not self._ahead:
                    await self._publish(self._pool.version)

    async def _publish(self, version: int) -> SyncReport:
        return await self._pool.publish(self._learner.publish(version, engines=self._pool.engines))


@dataclass(frozen=True, kw_only=True, slots=True)
class Engines:
    pool: RolloutPool
    rewards: RewardClient
    judge: RewardClient
    """Scores evaluation candidates: execution alone, without a memory to disturb."""
    learner: LearnerGroup
    policy: LearnerPolicy

    async def watch(self) -> NoReturn:
        """Raises how the learner, or the way of its weights, was lost; ends by raising only."""
        watches = [asyncio.ensure_future(watch) for watch in (self.learner.watch(), self.policy.resend())]
        try:
            done, _ = await asyncio.wait(watches, return_when=asyncio.FIRST_COMPLETED)
            for watch in done:
                watch.result()
        finally:
            for watch in watches:
                watch.cancel()
        raise AssertionError("a watch ends by raising only")

    def states(self) -> dict[str, str]:
        """What each part is doing, in words."""
        found = {f"rollout worker {index}": state for index, state in enumerate(self.pool.states())}
        stats = self.rewards.stats()
        waiting = f"{stats.queue_groups} waiting"
        if stats.queue_groups:
            waiting += f" for up to {stats.queue_age_s:.0f} s"
        found["reward server"] = (
            f"{stats.groups_in_flight} groups being scored, {waiting}, {stats.actor_restarts} restarts"
        )
        return found | {"learner": self.learner.doing}


@asynccontextmanager
async def engines(
    config: TrainConfig, policy: Path, resumed: Checkpoint | None, note: Callable[[str], None]
) -> AsyncIterator[Engines]:
    """Running engines that hold the policy of `resumed`, or of the folder `policy` at version 0.

    `note` is told of what is lost and replaced, one line each. Raises QuorumError with the first part's reason when one
    cannot start.
    """
    folder = str(resumed.policy if resumed else policy)
    version = resumed.state.version if resumed else 0
    async with AsyncExitStack() as stack:
        rewards = RewardClient(config.reward, ray_actors(config.reward), note=note)
        verdicts = judging(config.reward, config.evaluation.instances)
        judge = RewardClient(verdicts, ray_actors(verdicts), note=note)
        learner = LearnerGroup(_learner_spec(config, folder, str(policy)), config.cluster)
        stack.push_async_callback(_close_all, learner.close, judge.close, rewards.close)
        opened = asyncio.ensure_future(_start_pool(config, folder, version, stack, note))
        starts = (
            opened,
            asyncio.ensure_future(_start_learner(learner, resumed, after=opened if config.cluster.colocate else None)),
            asyncio.ensure_future(_start_rewards(rewards, resumed)),
            asyncio.ensure_future(_start_judge(judge, config.evaluation)),
        )
        try:
            # Every start is waited for, so that what did start is closed when another one fails.
            await asyncio.wait(starts)
        finally:
            # Whoever interrupts this must not find a part that starts while the others are closed.
            for start in starts:
                start.cancel()
            await asyncio.gather(*starts, return_exceptions=True)
        pool, *_ = await asyncio.gather(*starts)
        yield Engines(pool=pool, rewards=rewards, judge=judge, learner=learner, policy=LearnerPolicy(learner, pool))


async def _close_all(*closes: Callable[[], Awaitable[None]]) -> None:
    """Side by side: each may wait for a moment until its part has left in good order."""
    await asyncio.gather(*(close() for close in closes))


async def _start_pool(
    config: TrainConfig, folder: str, version: int, stack: AsyncExitStack, note: Callable[[str], None]
) -> RolloutPool:
    length = config.prompt.max_tokens + config.rollout.sampling.max_tokens
    log_dir = str(Path(config.run.dir) / config.run.name / "logs")
    workers = ray_workers(
        folder,
        config.rollout,
        config.cluster,
        max_model_len=length,
        seed=config.seed,
        version=version,
        log_dir=str(Path(log_dir).resolve()),
    )
    pool = RolloutPool(
        config.rollout,
        workers,
        max_model_len=config.rollout.engine.max_model_len or length,
        version=version,
        note=note,
    )
    await pool.start()
    stack.push_async_callback(pool.close)
    return pool


async def _start_learner(
    learner: LearnerGroup, resumed: Checkpoint | None, *, after: asyncio.Future[RolloutPool] | None
) -> None:
    if after is not None:
        await asyncio.wait([after])
        if after.exception() is not None:
            return
    await learner.start()
    if resumed is not None:
        await learner.load(resumed.folder)


async def _start_rewards(rewards: RewardClient, resumed: Checkpoint | None) -> None:
    await rewards.start()
    if resumed is not None and resumed.memory.is_file():
        await rewards.load(str(resumed.memory.resolve()))


async def _start_judge(judge: RewardClient, evaluation: EvaluationConfig) -> None:
    if evaluation.before or evaluation.after or evaluation.every:
        await judge.start()


def _learner_spec(config: TrainConfig, folder: str, reference: str) -> LearnerSpec:
    sampling = config.rollout.sampling
    backend = transfer_backend(config.rollout, config.cluster)
    return LearnerSpec(
        # Adapters go on from the weights that they were trained on, a checkpoint's policy has them merged.
        policy=reference if config.learner.lora.rank else folder,
        reference=reference,
        learner=config.learner,
        algo=config.algo,
        completion_budget=sampling.max_tokens,
        longest_sequence=config.prompt.max_tokens + sampling.max_tokens,
        total_updates=config.pipeline.steps * config.algo.updates_per_step,
        temperature=sampling.temperature,
        accelerator=config.cluster.accelerator,
        sender=sender_factory(backend, config.rollout.engine.dtype, _meeting(config)),
        max_logprob_difference=difference_limit(config.rollout, config.learner, config.cluster.accelerator),
        seed=config.seed,
    )


def _meeting(config: TrainConfig) -> NcclMeeting:
    return NcclMeeting(
        loopback=config.cluster.address is None,
        ranks_per_engine=config.rollout.engine.tensor_parallel_size,
        timeout_s=config.rollout.group_timeout_s,
    )
