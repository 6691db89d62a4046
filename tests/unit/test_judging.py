"""Evaluation measures every reward variant with one ruler."""

import pytest

from conf.load import load
from conf.schema.reward import RewardConfig
from conf.schema.root import TrainConfig
from trainer.evaluate import judging


def reward(*overrides: str) -> RewardConfig:
    return load(TrainConfig, "train", list(overrides)).reward


@pytest.mark.parametrize("instances", ["primary", "all"])
def test_a_policy_trained_with_strict_is_evaluated_like_one_trained_with_finer(instances: str) -> None:
    setting = f"reward.execution.instances={instances}"
    finer, strict = (judging(reward(f"reward={name}", setting)) for name in ("finer", "strict"))
    assert strict.execution == finer.execution
    assert strict.execution.order_dependent_gold == "score"
    assert strict.execution.instances == instances
    assert not strict.empty_needs_empty_everywhere
    assert not finer.empty_needs_empty_everywhere


def test_evaluation_names_its_own_instances_and_scores_constants() -> None:
    strict = reward("reward=strict")
    assert (strict.execution.instances, strict.execution.constant_answer) == ("all", "wrong")
    assert judging(strict, "primary").execution == judging(reward("reward=finer")).execution


def test_evaluation_keeps_the_budget_that_the_run_was_given() -> None:
    assert judging(reward("reward=strict", "reward.execution.budget.vm_steps=1234")).execution.budget.vm_steps == 1234
