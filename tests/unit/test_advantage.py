"""Advantages, filtering and sequences with known numbers, and TRL's own deviation."""

import math

import pytest

from conf.schema.algo import AdvantageConfig, AlgoConfig
from rewards.carriers import RewardResult, SqlTask
from rollout.carriers import Completion, Group, Prompt
from trainer.batch.advantage import group_advantages
from trainer.batch.filter import filter_groups
from trainer.batch.sequences import training_sequences
from trainer.carriers import ScoredGroup


def scored_group(totals: list[float | None], correct: list[bool] | None = None, finish: str = "stop") -> ScoredGroup:
    task = SqlTask(
        id="t",
        db_id="d",
        question="q",
        gold_sqls=("SELECT 1",),
        databases=("d.sqlite",),
    )
    completion = Completion(
        text="x",
        token_ids=(7, 8),
        logprobs=(-0.5, -0.25),
        version_spans=((0, 3),),
        finish_reason=finish,
    )
    results = tuple(
        RewardResult(
            status="unscorable" if t is None else "scored",
            total=t,
            correct=bool(correct and correct[i]),
        )
        for i, t in enumerate(totals)
    )
    prompt = Prompt(task=task, text="p", token_ids=(1, 2, 3))
    return ScoredGroup(
        group=Group(id="0-0", prompt=prompt, completions=(completion,) * len(totals)),
        results=results,
    )


def test_group_scale_divides_by_the_sample_deviation():
    (advantages,) = group_advantages([[0.0, 1.0, 2.0, 3.0]], AdvantageConfig())
    deviation = math.sqrt((2.25 + 0.25 + 0.25 + 2.25) / 3) + 1e-4
    assert advantages == pytest.approx([-1.5 / deviation, -0.5 / deviation, 0.5 / deviation, 1.5 / deviation])


def test_batch_scale_uses_every_reward_but_the_groups_own_mean():
    rewards = [[0.0, 2.0], [10.0, 14.0]]
    advantages = group_advantages(rewards, AdvantageConfig(scale="batch"))
    mean = 6.5
    deviation = math.sqrt(sum((r - mean) ** 2 for r in (0.0, 2.0, 10.0, 14.0)) / 3) + 1e-4
    assert advantages[0] == pytest.approx([-1 / deviation, 1 / deviation])
    assert advantages[1] == pytest.approx([-2 / deviation, 2 / deviation])


def test_leave_one_out_compares_with_the_others():
    (advantages,) = group_advantages([[1.0, 2.0, 6.0]], AdvantageConfig(scale="none", leave_one_out=True))
    assert advantages == pytest.approx([1 - 4.0, 2 - 3.5, 6 - 1.5])


def test_unscorable_results_enter_no_mean_and_no_deviation():
    with_hole, without = group_advantages([[1.0, None, 3.0], [1.0, 3.0]], AdvantageConfig())
    assert with_hole == pytest.approx([without[0], 0.0, without[1]])
    assert group_advantages([[None, 5.0]], AdvantageConfig()) == [[0.0, 0.0]]


def test_deviation_agrees_with_trl():
    torch = pytest.importorskip("torch")
    from trl.trainer.utils import nanstd

    rewards = [[0.0, 0.5, 2.0, float("nan")], [3.0, 1.0, 1.0, 0.25]]
    for row in rewards:
        expected = nanstd(torch.tensor(row, dtype=torch.float64)).item()
        (advantages,) = group_advantages([[None if math.isnan(r) else r for r in row]], AdvantageConfig())
        scored = [r for r in row if not math.isnan(r)]
        mean = sum(scored) / len(scored)
        assert advantages[0] == pytest.approx((row[0] - mean) / (expected + 1e-4), rel=1e-6)


def test_filter_names_one_reason_for_each_dropped_group():
    groups = [
        scored_group([0.0, 1.0]),
        scored_group([2.0, 2.0], [True, True]),
        scored_group([0.5, 0.5], [False, False]),
        scored_group([1.0, 1.0], [True, False]),
        scored_group([None, 1.0]),
    ]
    result = filter_groups(groups, drop_zero_variance=True)
    assert result.kept == (groups[0],)
    assert [d.reason for d in result.dropped] == [
        "all_right",
        "all_wrong",
        "equal",
        "unscorable",
    ]
    relaxed = filter_groups(groups, drop_zero_variance=False)
    assert relaxed.kept == tuple(groups[:4])
    assert [d.reason for d in relaxed.dropped] == ["unscorable"]


def test_sequences_carry_tokens_advantage_and_mask():
    groups = [scored_group([0.0, None, 1.0]), scored_group([0.0, 1.0], finish="length")]
    sequences = training_sequences(groups, AlgoConfig())
    assert [s.group_index for s in sequences] == [0, 0, 0, 1, 1]
    assert [s.masked for s in sequences] == [False, True, False, False, False]
    assert sequences[0].prompt_ids == (1, 2, 3)
    assert sequences[0].completion_ids == (7, 8)
    assert sequences[0].logprobs == (-0.5, -0.25)
    assert sequences[0].advantage == pytest.approx(-sequences[2].advantage)
    truncated = training_sequences(groups, AlgoConfig(mask_truncated=True))
    assert [s.masked for s in truncated] == [False, True, False, True, True]
