"""The whole pipeline (loop, producer, buffer, batcher) under random delays and answers, in simulated time: no group
lost, none twice, none too old, no deadlock."""

import asyncio
import random
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from conf.schema.algo import AlgoConfig
from conf.schema.rollout import SamplingConfig
from measure.scaling.clock import simulate
from rewards.carriers import RewardResult, SqlTask
from rollout.carriers import Completion, Group, Prompt
from trainer.batch.batcher import Batcher
from trainer.pipeline.buffer import GroupBuffer
from trainer.pipeline.clock import StageClock
from trainer.pipeline.loop import StepOutcome, TrainingLoop
from trainer.pipeline.producer import Producer
from trainer.preemption import Preemption

GROUP = 2
REGENERATIONS = 3
"""Answers with old weights before a position's engine answers with its own."""


@dataclass
class World:
    """Engines, scorers and learner in one: everything takes a random time, some answers are stale or unscorable."""

    random: random.Random
    staleness: int
    capacity: int
    stale_share: float
    unscorable_share: float
    flat_share: float
    version: int = 0
    training: bool = False
    generating: int = 0
    begun: list[str] = field(default_factory=list)
    committed: int = 0
    recorded: list[int] = field(default_factory=list)

    async def _takes_a_while(self) -> None:
        # Equal times make several things happen at once.
        await asyncio.sleep(self.random.choice([0.0, 1.0, 1.0, 2.0, self.random.random() * 10]))

    async def generate(self, prompt, *, group_id, n, sampling):
        assert not (self.training and self.staleness == 0), "admitted while the synchronous learner works"
        assert group_id not in self.begun
        self.begun.append(group_id)
        self.generating += 1
        assert self.generating <= self.capacity
        version = self.version
        attempt = int(group_id.partition(".")[2])
        if attempt < REGENERATIONS and self.random.random() < self.stale_share:
            version = max(0, version - self.staleness - 1)
        await self._takes_a_while()
        self.generating -= 1
        completion = Completion(
            text="SELECT 1", token_ids=(3,), logprobs=(-0.5,), version_spans=((0, version),), finish_reason="stop"
        )
        return Group(id=group_id, prompt=prompt, completions=(completion,) * n)

    async def score(self, task, completions, *, lengths):
        await self._takes_a_while()
        if self.random.random() < self.flat_share:
            return tuple(RewardResult(status="scored", total=1.0, correct=True) for _ in completions)
        lost = [self.random.random() < self.unscorable_share for _ in completions]
        return tuple(
            RewardResult(status="unscorable", total=None, error="disk full")
            if gone
            else RewardResult(status="scored", total=float(place % 2), correct=bool(place % 2))
            for place, gone in enumerate(lost)
        )

    async def train(self, sequences):
        self.training = True
        await self._takes_a_while()
        return {}

    async def reference_kl(self, sequences):
        return [0.0] * len(sequences)

    async def synchronise(self, version):
        await self._takes_a_while()
        assert version == self.version + 1
        self.version = version
        self.training = False
        return {}

    async def commit(self):
        self.committed += 1

    def record(self, position, correct):
        self.recorded.append(position)


def prompt_at(position: int) -> Prompt:
    task = SqlTask(id=str(position), db_id="shop", question="?", gold_sqls=("SELECT 1",), databases=("shop.sqlite",))
    return Prompt(task=task, text="?", token_ids=(1, 2))


def run(world: World, *, batch: int, steps: int, algo: AlgoConfig) -> list[StepOutcome]:
    limit = int(algo.resample_limit * batch) if algo.resample else 0
    loop = TrainingLoop(
        buffer=GroupBuffer(batch_size=batch, max_staleness=world.staleness, max_rejected=limit),
        producer=Producer(
            prompt_at=prompt_at, source=world, scoring=world, group_size=GROUP, sampling=SamplingConfig()
        ),
        policy=world,
        memory=world,
        history=world,
        clock=StageClock(),
        preemption=Preemption(),
        batcher=Batcher(algo=algo, component_weights={}, completion_budget=8),
        stall_timeout_s=1e4,
        max_unscorable_share=1.0,
    )

    async def outcomes() -> list[StepOutcome]:
        return [outcome async for outcome in loop.steps(0, steps)]

    return simulate(outcomes())


@settings(max_examples=150, deadline=None)
@given(
    batch=st.integers(1, 5),
    staleness=st.integers(0, 3),
    steps=st.integers(1, 6),
    resample=st.booleans(),
    stale_share=st.sampled_from([0.0, 0.3, 0.9]),
    unscorable_share=st.sampled_from([0.0, 0.4, 1.0]),
    flat_share=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 10**6),
)
def test_random_delays_and_answers_keep_every_promise(
    batch, staleness, steps, resample, stale_share, unscorable_share, flat_share, seed
):
    world = World(
        random=random.Random(seed),
        staleness=staleness,
        capacity=(staleness + 1) * batch,
        stale_share=stale_share,
        unscorable_share=unscorable_share,
        flat_share=flat_share,
    )
    # A deadlock is SimulationStuck or PipelineStalled: nothing else can end the wait.
    outcomes = run(world, batch=batch, steps=steps, algo=AlgoConfig(resample=resample))
    assert len(outcomes) == steps == world.committed
    consumed = [int(group.group.prompt.task.id) for outcome in outcomes for group in outcome.groups]
    assert consumed == list(range(len(consumed))), "lost, twice, or out of order"
    assert world.recorded == consumed
    version = 0
    for outcome in outcomes:
        assert len(outcome.groups) == batch + outcome.resampled
        assert resample or outcome.resampled == 0
        assert len(outcome.filtered.kept) + len(outcome.filtered.dropped) == len(outcome.groups)
        assert outcome.trained_version == version
        # Groups that were replaced teach nothing at any age.
        trained_on = outcome.filtered.kept if resample else outcome.groups
        assert all(version - group.group.oldest_version <= staleness for group in trained_on)
        trained = any(not sequence.masked for sequence in outcome.sequences)
        assert outcome.version == version + trained
        version = outcome.version
    regenerated = sum(len(outcome.stale) for outcome in outcomes)
    assert len(world.begun) == len(consumed) + regenerated, "something was generated and neither trained nor stale"
