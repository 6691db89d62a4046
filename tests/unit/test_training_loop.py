"""The training loop with hand-written fakes at its Protocols: order of events, staleness, failures."""

import asyncio
import os
import random
import signal
import time

import pytest

from conf.schema.algo import AdvantageConfig, AlgoConfig, KlConfig
from conf.schema.rollout import SamplingConfig
from rewards.carriers import RewardResult, SqlTask
from rollout.carriers import Completion, Group, Prompt
from trainer.batch.batcher import Batcher
from trainer.carriers import SkippedUpdates
from trainer.guard import unless_lost
from trainer.learner.errors import LearnerLost
from trainer.pipeline.buffer import GroupBuffer
from trainer.pipeline.clock import StageClock
from trainer.pipeline.loop import PipelineStalled, TooManyUnscorable, TrainingLoop
from trainer.pipeline.producer import Producer
from trainer.preemption import Preempted, Preemption
from trainer.step_metrics import ledger_row, outcome_metrics


def prompt_at(position: int) -> Prompt:
    task = SqlTask(
        id=f"task-{position}", db_id="shop", question="?", gold_sqls=("SELECT 1",), databases=("shop.sqlite",)
    )
    return Prompt(task=task, text="?", token_ids=(1, 2))


class FakeEngine:
    """Generates with the version it holds, in random order; can go silent."""

    def __init__(self, events: list[str], *, silent: bool = False) -> None:
        self.version = 0
        self.events = events
        self.silent = silent
        self.truncated: set[str] = set()
        self.random = random.Random(0)

    async def generate(self, prompt, *, group_id, n, sampling):
        version = self.version
        self.events.append(f"admit {group_id} v{version}")
        await asyncio.sleep(3600 if self.silent else self.random.random() * 0.01)
        completion = Completion(
            text="SELECT 1",
            token_ids=(3,),
            logprobs=(-0.5,),
            version_spans=((0, version),),
            finish_reason="length" if group_id in self.truncated else "stop",
        )
        return Group(id=group_id, prompt=prompt, completions=(completion,) * n)


class FakeScoring:
    def __init__(self, totals: list[float | None]) -> None:
        self.totals = totals
        self.lengths: list[float] = []

    async def score(self, task, completions, *, lengths):
        self.lengths = list(lengths)
        return tuple(
            RewardResult(status="unscorable" if total is None else "scored", total=total, error="disk full")
            for total, _ in zip(self.totals, completions, strict=True)
        )


class FakePolicy:
    def __init__(self, engine: FakeEngine, events: list[str]) -> None:
        self.engine = engine
        self.events = events
        self.batches: list[int] = []
        self.skips = SkippedUpdates()

    async def skipped(self, sequences):
        return self.skips

    async def train(self, sequences):
        self.events.append("train")
        self.batches.append(len(sequences))
        self.advantages = [sequence.advantage for sequence in sequences]
        await asyncio.sleep(0.02)
        return {"policy/loss": 0.5, "policy/skipped_updates": float(len(self.skips.updates))}

    async def reference_kl(self, sequences):
        self.events.append("reference")
        return [float(i) for i in range(len(sequences))]

    async def synchronise(self, version):
        self.engine.version = version
        self.events.append(f"sync v{version}")
        return {}


class FakeMemory:
    commits = 0

    async def commit(self):
        self.commits += 1


class FakeHistory(list):
    def record(self, position, correct):
        self.append((position, correct))


class FlatTasks(FakeScoring):
    """Tasks whose number is in `flat` get equal rewards: they teach nothing."""

    def __init__(self, flat) -> None:
        super().__init__([1.0, 0.0])
        self.flat = flat

    async def score(self, task, completions, *, lengths):
        if int(task.id.removeprefix("task-")) in self.flat:
            return tuple(RewardResult(status="scored", total=1.0, correct=True) for _ in completions)
        return await super().score(task, completions, lengths=lengths)


STATES = {"rollout worker 0": "stale (0 groups)", "learner": "waiting for work"}


def build(
    *,
    staleness=0,
    batch=4,
    steps=3,
    totals=(1.0, 0.0),
    silent=False,
    stall=5.0,
    algo=None,
    scoring=None,
    history=None,
    preemption=None,
):
    history = FakeHistory() if history is None else history
    algo = algo or AlgoConfig()
    events: list[str] = []
    engine = FakeEngine(events, silent=silent)
    policy = FakePolicy(engine, events)
    producer = Producer(
        prompt_at=prompt_at,
        source=engine,
        scoring=scoring or FakeScoring(list(totals)),
        group_size=2,
        sampling=SamplingConfig(),
    )
    loop = TrainingLoop(
        buffer=GroupBuffer(
            batch_size=batch,
            max_staleness=staleness,
            max_rejected=int(algo.resample_limit * batch) if algo.resample else 0,
        ),
        producer=producer,
        policy=policy,
        memory=FakeMemory(),
        history=history,
        clock=StageClock(),
        preemption=preemption or Preemption(),
        batcher=Batcher(algo=algo, component_weights={}, completion_budget=8),
        stall_timeout_s=stall,
        max_unscorable_share=0.5,
        states=lambda: STATES,
    )

    async def run():
        return [outcome async for outcome in loop.steps(0, steps)]

    return run, events, policy


def trained_ids(outcomes):
    return [[group.group.prompt.task.id for group in outcome.groups] for outcome in outcomes]


@pytest.mark.parametrize("staleness", [0, 1, 2])
def test_every_task_is_trained_once_in_stream_order_and_young_enough(staleness):
    run, _, _ = build(staleness=staleness)
    outcomes = asyncio.run(run())
    assert trained_ids(outcomes) == [[f"task-{4 * k + i}" for i in range(4)] for k in range(3)]
    for outcome in outcomes:
        assert all(outcome.trained_version - g.group.oldest_version <= staleness for g in outcome.groups)
    assert [outcome.version for outcome in outcomes] == [1, 2, 3]


def test_synchronous_mode_generates_nothing_between_train_and_sync():
    run, events, _ = build(staleness=0)
    asyncio.run(run())
    kinds = [event.split()[0] for event in events]
    assert kinds == (["admit"] * 4 + ["train", "sync"]) * 3


def test_one_step_ahead_admits_the_next_batch_before_training():
    run, events, _ = build(staleness=1)
    asyncio.run(run())
    assert [event.split()[0] for event in events][:9] == ["admit"] * 8 + ["train"]


def test_groups_of_equal_rewards_reach_no_learner_and_keep_the_version():
    run, events, policy = build(totals=(1.0, 1.0), steps=2)
    outcomes = asyncio.run(run())
    assert policy.batches == []
    assert not any(event.startswith("sync") for event in events)
    assert [len(outcome.filtered.dropped) for outcome in outcomes] == [4, 4]
    assert [outcome.version for outcome in outcomes] == [0, 0]


def test_a_stall_says_who_waits_for_whom():
    run, _, _ = build(silent=True, stall=0.05)
    with pytest.raises(PipelineStalled) as error:
        asyncio.run(run())
    assert str(error.value).endswith(
        "the learner waits for 4 groups; 4 wait for the rollout workers, 0 for the reward server; "
        "rollout worker 0: stale (0 groups); learner: waiting for work"
    )


def test_too_many_unscorable_completions_end_the_run():
    run, _, policy = build(totals=(None, None))
    with pytest.raises(TooManyUnscorable, match="8 of 8 completions.*disk full"):
        asyncio.run(run())
    assert policy.batches == []


class CausedBy(FakeScoring):
    """Groups of the tasks in `lost` have no reward, by the doing of `cause`."""

    def __init__(self, lost, cause) -> None:
        super().__init__([1.0, 0.0])
        self.lost, self.cause = lost, cause

    async def score(self, task, completions, *, lengths):
        if int(task.id.removeprefix("task-")) in self.lost:
            result = RewardResult(status="unscorable", total=None, error="why", cause=self.cause)
            return (result,) * len(completions)
        return await super().score(task, completions, lengths=lengths)


@pytest.mark.parametrize("cause", ["data", "policy"])
@pytest.mark.parametrize("staleness", [0, 1])
def test_a_step_whose_only_group_cannot_be_scored_by_its_own_doing_gives_way_to_the_next(staleness, cause):
    history = FakeHistory()
    run, events, policy = build(
        batch=1, steps=5, staleness=staleness, scoring=CausedBy({0, 1, 3}, cause), history=history
    )
    outcomes = asyncio.run(run())
    assert trained_ids(outcomes) == [[f"task-{n}"] for n in range(5)]
    assert policy.batches == [2, 2]
    assert [outcome.version for outcome in outcomes] == [0, 0, 1, 1, 2]
    assert [position for position, _ in history] == [0, 1, 2, 3, 4]
    rows = [ledger_row(outcome) for outcome in outcomes]
    assert [row.dropped for row in rows] == [
        (("0.0", "task-0", f"unscorable_{cause}"),),
        (("1.0", "task-1", f"unscorable_{cause}"),),
        (),
        (("3.0", "task-3", f"unscorable_{cause}"),),
        (),
    ]
    metrics = [outcome_metrics(outcome) for outcome in outcomes]
    assert [row[f"reward/unscorable_{cause}"] for row in metrics] == [2.0, 2.0, 0.0, 2.0, 0.0]
    assert [row["reward/unscorable"] for row in metrics] == [0.0] * 5
    assert [row["async/dropped_unscorable"] for row in metrics] == [1.0, 1.0, 0.0, 1.0, 0.0]


def test_what_the_infrastructure_lost_ends_a_run_of_one_prompt_a_step():
    run, _, policy = build(batch=1, steps=5, scoring=CausedBy({2}, "infrastructure"))
    with pytest.raises(TooManyUnscorable, match="2 of 2 completions.*why"):
        asyncio.run(run())
    assert policy.batches == [2, 2]


@pytest.mark.parametrize("staleness", [0, 1, 2])
def test_resampling_fills_every_batch_with_groups_that_teach(staleness):
    flat = {0, 1, 2, 5, 9, 10, 11, 12}
    history = FakeHistory()
    run, events, policy = build(
        staleness=staleness, algo=AlgoConfig(resample=True), scoring=FlatTasks(flat), history=history
    )
    outcomes = asyncio.run(run())
    assert policy.batches == [8, 8, 8]
    consumed = [int(task.removeprefix("task-")) for step in trained_ids(outcomes) for task in step]
    assert consumed == list(range(len(consumed)))
    assert [position for position, _ in history] == consumed
    assert history[0] == (0, [True, True])
    for outcome in outcomes:
        dropped = {int(entry.group.group.prompt.task.id.removeprefix("task-")) for entry in outcome.filtered.dropped}
        assert dropped <= flat
        assert outcome.resampled == len(dropped)
        assert len(outcome.filtered.kept) == 4
    # 12 groups teach and 8 do not: nothing was drawn beyond them.
    assert sum(event.startswith("admit") for event in events) == 20


def test_resampling_stops_at_its_limit():
    run, events, policy = build(algo=AlgoConfig(resample=True, resample_limit=0.5), scoring=FlatTasks(set(range(100))))
    outcomes = asyncio.run(run())
    assert policy.batches == []
    assert [outcome.resampled for outcome in outcomes] == [2, 2, 2]
    assert [len(outcome.filtered.dropped) for outcome in outcomes] == [6, 6, 6]
    assert sum(event.startswith("admit") for event in events) == 18


def test_a_kl_term_in_the_reward_is_asked_for_before_training():
    algo = AlgoConfig(kl=KlConfig(coefficient=0.5, place="reward"), advantage=AdvantageConfig(scale="none"))
    run, events, policy = build(batch=1, steps=1, algo=algo)
    (outcome,) = asyncio.run(run())
    assert [event.split()[0] for event in events] == ["admit", "reference", "train", "sync"]
    # rewards 1 and 0, KL 0 and 1: 1 against -0.5
    assert policy.advantages == pytest.approx([0.75, -0.75])
    assert outcome.learner["policy/kl_reference"] == pytest.approx(0.5)


def test_scoring_hears_which_share_of_the_token_budget_was_used():
    scoring = FakeScoring([1.0, 0.0])
    run, _, _ = build(batch=1, steps=1, scoring=scoring)
    asyncio.run(run())
    # one token of 2,048
    assert scoring.lengths == [1 / 2048, 1 / 2048]


async def learner_that_ends(after_s):
    await asyncio.sleep(after_s)
    raise LearnerLost("learner rank 0 was lost")


def run_beside(job, watch, cause_s):
    async def both():
        async def work():
            await job()

        await unless_lost(work(), watch, cause_s=cause_s)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    return asyncio.run(both())


def test_a_stall_that_the_learners_loss_has_caused_is_that_loss():
    run, _, _ = build(silent=True, stall=0.05)
    with pytest.raises(LearnerLost):
        run_beside(run, learner_that_ends(0.15), cause_s=5.0)
    run, _, _ = build(silent=True, stall=0.05)
    with pytest.raises(PipelineStalled):
        run_beside(run, learner_that_ends(3600), cause_s=0.05)


def test_what_is_no_consequence_of_a_lost_learner_is_told_at_once():
    run, _, _ = build(totals=(None, None))
    began = time.monotonic()
    with pytest.raises(TooManyUnscorable):
        run_beside(run, learner_that_ends(3600), cause_s=5.0)
    assert time.monotonic() - began < 2.0


def test_a_run_that_ends_well_does_not_wait_for_the_watch():
    run, events, _ = build(steps=1)
    run_beside(run, learner_that_ends(3600), cause_s=5.0)
    assert events[-1] == "sync v1"


def test_the_ledger_tells_the_groups_of_a_skipped_update_from_those_of_another():
    run, _, policy = build(batch=3, steps=1, algo=AlgoConfig(updates_per_step=2))
    policy.skips = SkippedUpdates(updates=(1,), groups=frozenset({1, 2}))
    (outcome,) = asyncio.run(run())
    row = ledger_row(outcome)
    assert row.trained == (("0.0", "task-0", 0),)
    assert row.dropped == (("1.0", "task-1", "gradient not finite"), ("2.0", "task-2", "gradient not finite"))
    run, _, policy = build(batch=3, steps=1)
    (outcome,) = asyncio.run(run())
    assert [entry[1] for entry in ledger_row(outcome).trained] == ["task-0", "task-1", "task-2"]


def test_the_ledger_says_that_a_group_of_masked_completions_taught_nothing():
    run, _, policy = build(batch=2, steps=1, algo=AlgoConfig(mask_truncated=True))
    policy.engine.truncated = {"1.0"}
    (outcome,) = asyncio.run(run())
    row = ledger_row(outcome)
    assert row.trained == (("0.0", "task-0", 0),)
    assert row.dropped == (("1.0", "task-1", "masked"),)


@pytest.mark.parametrize(
    ("algo", "trained"),
    [
        ({}, []),
        ({"kl": {"coefficient": 0.04}}, [2, 2]),
        ({"entropy": {"bonus": 0.01}}, [2, 2]),
        ({"kl": {"coefficient": 0.04}, "resample": True, "resample_limit": 1e-9}, []),
        # The completions differ in how far they are from the reference, and so in what they earn.
        ({"kl": {"coefficient": 0.04, "place": "reward"}}, [2, 2]),
        ({"drop_zero_variance": False}, [2, 2]),
    ],
    ids=["alone", "kl", "entropy", "resampled", "kl_in_reward", "kept"],
)
def test_a_group_of_equal_rewards_is_trained_where_something_beside_its_advantage_teaches(algo, trained):
    """One prompt a step: dropped, its KL term would be the whole update."""
    run, _, policy = build(batch=1, steps=2, totals=(1.0, 1.0), algo=AlgoConfig.model_validate(algo))
    asyncio.run(run())
    assert policy.batches == trained


def test_sigterm_in_a_step_ends_the_loop_after_it_although_the_next_batch_is_complete():
    preemption = Preemption()
    run, events, policy = build(staleness=1, batch=2, steps=3, preemption=preemption)
    delays = iter([5.0, *[0.0] * 10])
    policy.engine.random.random = lambda: next(delays)
    train = policy.train

    async def told(sequences):
        os.kill(os.getpid(), signal.SIGTERM)
        return await train(sequences)

    policy.train = told

    async def gently():
        with preemption.listening(), preemption.gently():
            await run()

    with pytest.raises(Preempted, match="^stopped by SIGTERM$"):
        asyncio.run(gently())
    assert [event for event in events if not event.startswith("admit")] == ["train", "sync v1"]
