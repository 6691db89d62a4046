"""Engines that hold other weights than the learner are found in runs ahead of the learner too, where no batch has
tokens of the trained version."""

import asyncio
from typing import Any

import pytest

from conf.schema.learner import LearnerConfig
from conf.schema.rollout import RolloutConfig, SamplingConfig
from rewards.carriers import SqlTask
from rollout.carriers import Completion, Group, Prompt
from trainer.carriers import TrainingSequence
from trainer.learner.agreement import check_difference, difference_limit
from trainer.learner.errors import WrongWeights
from trainer.pipeline.fresh import COMPLETIONS, EVERY, FreshCheck, tells_itself

PROMPT = Prompt(
    task=SqlTask(id="t", db_id="d", question="?", gold_sqls=("SELECT 1",), databases=("d.sqlite",)),
    text="?",
    token_ids=(1, 2),
)


class Engines:
    """Give every token -1 nats, the learner `off` more; completions have `length` tokens."""

    def __init__(self, *, length: int = 16, off: float = 0.0) -> None:
        self.length, self.off = length, off
        self.asked: list[str] = []
        self.budgets: set[int] = set()

    async def generate(self, prompt: Prompt, *, group_id: str, n: int, sampling: SamplingConfig) -> Group:
        self.asked.append(group_id)
        self.budgets.add(sampling.max_tokens)
        length = min(self.length, sampling.max_tokens)
        one = Completion(
            text="", token_ids=(3,) * length, logprobs=(-1.0,) * length, version_spans=((0, 0),), finish_reason="stop"
        )
        return Group(id=group_id, prompt=prompt, completions=(one,) * n)

    async def logprobs(self, sequences: Any) -> list[list[float]]:
        return [[-1.0 + self.off] * len(s.completion_ids) for s in sequences]


def batch(*lags: tuple[tuple[int, int], ...], length: int = 60, masked: bool = False) -> list[TrainingSequence]:
    """A sequence in a group of its own for each of `lags`."""
    return [
        TrainingSequence(
            group_index=n,
            prompt_ids=(1,),
            completion_ids=(2,) * length,
            logprobs=(-1.0,) * length,
            advantage=1.0,
            lags=lag,
            masked=masked,
        )
        for n, lag in enumerate(lags)
    ]


FRESH, STALE = ((0, 0),), ((0, 1),)


def check(engines: Engines, *, updates: int = 1, workers: int = 1, max_tokens: int = 64) -> FreshCheck:
    sampling = SamplingConfig(max_tokens=max_tokens)
    return FreshCheck(source=engines, policy=engines, sampling=sampling, updates=updates, workers=workers, limit=1e-3)


def test_a_batch_tells_itself_where_its_first_update_has_enough_fresh_tokens() -> None:
    assert tells_itself(batch(FRESH, FRESH), 1)
    assert not tells_itself(batch(STALE, STALE), 1)
    # 100 of 120 tokens, and 99.
    assert tells_itself(batch(FRESH, ((0, 1), (20, 0))), 1)
    assert not tells_itself(batch(FRESH, ((0, 1), (21, 0))), 1)
    # The learner looks before its first update.
    assert not tells_itself(batch(STALE, STALE, FRESH, FRESH), 2)
    assert tells_itself(batch(FRESH, FRESH, STALE, STALE), 2)
    # A whole batch of fewer tokens than that is all there is.
    assert tells_itself(batch(FRESH, length=5), 1)
    assert not tells_itself(batch(FRESH, STALE, length=5), 1)
    assert not tells_itself(batch(FRESH, FRESH, masked=True), 1)


def steps(engines: Engines, batches: list[list[TrainingSequence]], **options: Any) -> list[dict[str, float]]:
    async def run() -> list[dict[str, float]]:
        one = check(engines, **options)
        return [await one.before(b, PROMPT, version=step) for step, b in enumerate(batches)]

    return asyncio.run(run())


def test_the_first_update_is_looked_at_and_then_every_tenth_step_and_each_row_says_so() -> None:
    engines = Engines()
    rows = steps(engines, [batch(FRESH, FRESH), *[batch(STALE, STALE)] * 22])
    assert engines.asked == ["check-1.0.0", f"check-{1 + EVERY}.0.0", f"check-{1 + 2 * EVERY}.0.0"]
    assert [row["mismatch/unchecked_steps"] for row in rows] == [0, 0, *range(1, 10), 0, *range(1, 10), 0, 1]
    assert [step for step, row in enumerate(rows) if "mismatch/after_sync_abs_mean" in row] == [1, 11, 21]
    assert rows[1]["mismatch/after_sync_abs_mean"] == 0.0
    assert engines.budgets == {16}


def test_batches_that_tell_themselves_cost_nothing() -> None:
    engines = Engines()
    rows = steps(engines, [batch(FRESH, FRESH)] * 30)
    assert engines.asked == []
    assert rows == [{"mismatch/unchecked_steps": 0.0}] * 30


@pytest.mark.parametrize("off", [0.002, -0.002, 5.0, float("nan")])
def test_other_weights_are_refused_at_the_first_update_that_they_missed(off: float) -> None:
    with pytest.raises(WrongWeights, match=r"stale or wrong weights: .* nats a token on average, over tokens sampled"):
        steps(Engines(off=off), [batch(FRESH, FRESH), batch(STALE, STALE)])


def test_short_completions_are_asked_for_until_there_are_enough_tokens_of_every_worker() -> None:
    engines = Engines(length=5)
    steps(engines, [batch(FRESH, FRESH), batch(STALE, STALE)], workers=2)
    # 2 workers x 8 completions x 5 tokens are 80.
    assert engines.asked == ["check-1.0.0", "check-1.0.1", "check-1.1.0", "check-1.1.1"]
    assert COMPLETIONS == 8
    engines = Engines(length=1)
    steps(engines, [batch(FRESH, FRESH), batch(STALE, STALE)])
    assert len(engines.asked) == 8


@pytest.mark.parametrize(
    ("engine", "learner", "accelerator", "limit"),
    [
        ("float32", "float32", "cpu", 1e-3),
        ("float32", "float32", "gpu", 1e-2),
        ("bfloat16", "float32", "cpu", 0.1),
        ("float32", "bfloat16", "cpu", 0.1),
        ("bfloat16", "bfloat16", "gpu", 0.1),
    ],
)
def test_the_limit_is_what_the_coarser_precision_needs(
    engine: str, learner: str, accelerator: str, limit: float
) -> None:
    rollout = RolloutConfig.model_validate({"engine": {"dtype": engine}})
    config = LearnerConfig.model_validate({"dtype": learner})
    assert difference_limit(rollout, config, accelerator) == limit
    own = rollout.model_copy(update={"max_logprob_difference": 0.5})
    assert difference_limit(own, config, accelerator) == 0.5


def test_a_difference_that_is_no_number_is_above_every_limit() -> None:
    check_difference(1e-3, 1e-3, of="")
    for difference in (1.1e-3, float("nan"), float("inf")):
        with pytest.raises(WrongWeights, match=r"at most 0\.001: rollout\.max_logprob_difference"):
            check_difference(difference, 1e-3, of="over all")
