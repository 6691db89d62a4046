"""Advantages, filtering and sequences with known numbers, and TRL's own deviation."""

import math
from dataclasses import replace

import pytest

from conf.schema.algo import AdvantageConfig, AlgoConfig, KlConfig, OverlongConfig
from conf.schema.reward import AtomicReward, MemoryReward, RewardConfig
from rewards.carriers import RewardResult, SqlTask
from rollout.carriers import Completion, Group, Prompt, ScoredGroup
from trainer.batch.advantage import group_advantages
from trainer.batch.batcher import Batcher
from trainer.batch.filter import filter_groups
from trainer.batch.rewards import compared_rewards, component_weights, overlong_deduction
from trainer.carriers import TrainingSequence


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
    rewards = [[r.total for r in group.results] for group in groups]
    result = filter_groups(groups, rewards, drop_zero_variance=True)
    assert result.kept == (groups[0],)
    assert [d.reason for d in result.dropped] == [
        "all_right",
        "all_wrong",
        "equal",
        "unscorable",
    ]
    relaxed = filter_groups(groups, rewards, drop_zero_variance=False)
    assert relaxed.kept == tuple(groups[:4])
    assert [d.reason for d in relaxed.dropped] == ["unscorable"]


def test_sequences_carry_tokens_advantage_and_mask():
    groups = [scored_group([0.0, None, 1.0]), scored_group([0.0, 1.0], finish="length")]
    sequences = sequences_of(groups, AlgoConfig())
    assert [s.group_index for s in sequences] == [0, 0, 0, 1, 1]
    assert [s.masked for s in sequences] == [False, True, False, False, False]
    assert [s.counted for s in sequences] == [True, False, True, True, True]
    assert sequences[0].prompt_ids == (1, 2, 3)
    assert sequences[0].completion_ids == (7, 8)
    assert sequences[0].logprobs == (-0.5, -0.25)
    assert sequences[0].advantage == pytest.approx(-sequences[2].advantage)
    assert sequences[0].lags == ((0, 2),)
    truncated = sequences_of(groups, AlgoConfig(mask_truncated=True))
    assert [s.masked for s in truncated] == [False, True, False, True, True]
    assert [s.counted for s in truncated] == [True, False, True, True, True]


def batcher(algo: AlgoConfig, weights: dict[str, float] | None = None, budget: int = 8) -> Batcher:
    return Batcher(algo=algo, component_weights=weights or {}, completion_budget=budget)


def sequences_of(groups: list[ScoredGroup], algo: AlgoConfig, **keywords) -> list[TrainingSequence]:
    make = batcher(algo, **keywords)
    return make.sequences(groups, make.filter(groups), version=5)


def test_batch_scale_counts_dropped_groups_as_trl_does():
    groups = [scored_group([0.0, 2.0]), scored_group([5.0, 5.0], [True, True])]
    sequences = sequences_of(groups, AlgoConfig(advantage=AdvantageConfig(scale="batch")))
    spread = math.sqrt((9 + 1 + 4 + 4) / 3) + 1e-4
    assert [s.advantage for s in sequences] == pytest.approx([-1 / spread, 1 / spread])


def with_components(rows: list[dict[str, float | None] | None]) -> ScoredGroup:
    group = scored_group([None if row is None else 0.0 for row in rows])
    results = tuple(replace(result, components=row or {}) for result, row in zip(group.results, rows, strict=True))
    return replace(group, results=results)


COMPONENTS = [
    [{"execution": 2.0, "atomic": 0.5}, {"execution": 0.0, "atomic": None}, None, {"execution": 0.0, "atomic": 0.1}],
    [{"execution": 1.0, "atomic": 0.9}, {"execution": 1.0, "atomic": 0.2}, {"execution": 1.0, "atomic": 0.4}, None],
]
NORMALISED = AdvantageConfig(rewards="normalised_components", scale="batch")


def test_components_are_normalised_one_by_one_inside_their_group():
    group = with_components(COMPONENTS[0])
    found = compared_rewards(
        group, AlgoConfig(advantage=NORMALISED), weights={"execution": 1.0, "atomic": 0.5}, completion_budget=8
    )
    third, atomic = 2 / 3, math.sqrt(2 * 0.2**2) + 1e-4
    execution = math.sqrt((4 / 3 * 4 / 3 + 2 * third * third) / 2) + 1e-4
    assert found[0] == pytest.approx((4 / 3) / execution + 0.5 * 0.2 / atomic)
    assert found[1] == pytest.approx(-third / execution)
    assert found[2] is None
    assert found[3] == pytest.approx(-third / execution - 0.5 * 0.2 / atomic)


def test_normalised_components_agree_with_trl():
    torch = pytest.importorskip("torch")
    from trl.trainer.utils import nanstd

    weights = {"execution": 1.0, "atomic": 0.5}
    groups = [with_components(rows) for rows in COMPONENTS]
    sequences = sequences_of(groups, AlgoConfig(advantage=NORMALISED), weights=weights)
    nan = float("nan")
    table = [
        [nan if row is None or row[name] is None else row[name] for name in weights]
        for rows in COMPONENTS
        for row in rows
    ]
    # The statements of TRL's normalize_then_sum, on its own nanstd.
    per_function = torch.tensor(table, dtype=torch.float64)
    grouped = per_function.view(2, 4, 2)
    normalised = (grouped - torch.nanmean(grouped, dim=1, keepdim=True)) / (nanstd(grouped, dim=1, keepdim=True) + 1e-4)
    rewards = (normalised.view(8, 2) * torch.tensor([1.0, 0.5])).nansum(dim=1)
    rewards[torch.isnan(per_function).all(dim=1)] = nan
    expected = (rewards - torch.nanmean(rewards)) / (nanstd(rewards) + 1e-4)
    assert [s.advantage for s in sequences] == pytest.approx(torch.nan_to_num(expected, nan=0.0).tolist(), rel=1e-6)


def test_a_group_of_equal_totals_teaches_where_its_components_differ():
    group = with_components(COMPONENTS[1])
    assert not batcher(AlgoConfig()).teaches(group)
    assert batcher(AlgoConfig(advantage=NORMALISED), {"execution": 1.0, "atomic": 0.5}).teaches(group)
    assert not batcher(AlgoConfig(advantage=NORMALISED), {"execution": 1.0}).teaches(group)


def test_component_weights_name_what_is_switched_on():
    config = RewardConfig(memory=MemoryReward(enabled=False), atomic=AtomicReward(weight=0.3))
    assert component_weights(config) == {"format": 1.0, "execution": 1.0, "atomic": 0.3}


def test_the_overlong_deduction_agrees_with_trl():
    from trl.rewards import get_soft_overlong_punishment

    config = OverlongConfig(buffer_tokens=4, factor=0.5)
    punish = get_soft_overlong_punishment(max_completion_len=10, soft_punish_cache=4)
    for length in range(13):
        (expected,) = punish(completion_ids=[[0] * length])
        assert overlong_deduction(length, 10, config) == pytest.approx(-0.5 * expected)
    group = scored_group([1.0, 1.0])
    long = replace(group.group.completions[0], token_ids=(7,) * 9, logprobs=(-0.5,) * 9)
    uneven = replace(group, group=replace(group.group, completions=(group.group.completions[0], long)))
    algo = AlgoConfig(overlong=config, advantage=AdvantageConfig(scale="none"))
    assert [s.advantage for s in sequences_of([uneven], algo, budget=10)] == pytest.approx([0.1875, -0.1875])


def test_a_kl_term_in_the_reward_agrees_with_rloo():
    # r - beta * KL against the mean of the others: 1 - 0.2 against 0 - 0.1 and 3 - 0.3.
    algo = AlgoConfig(
        kl=KlConfig(coefficient=0.1, place="reward"), advantage=AdvantageConfig(scale="none", leave_one_out=True)
    )
    groups = [scored_group([1.0, 1.0], [True, True]), scored_group([1.0, 0.0, None, 3.0])]
    make = batcher(algo)
    kl = [[5.0, 5.0], [2.0, 1.0, 7.0, 3.0]]
    filtered = make.filter(groups, kl)
    assert filtered.places == (1,)
    sequences = make.sequences(groups, filtered, version=5, kl=kl)
    assert [s.advantage for s in sequences] == pytest.approx(
        [0.8 - (-0.1 + 2.7) / 2, -0.1 - (0.8 + 2.7) / 2, 0.0, 2.7 - (0.8 - 0.1) / 2]
    )


@pytest.mark.parametrize("drop", [True, False])
def test_a_kl_term_in_the_reward_is_deducted_from_all_that_the_batch_deviates_over(drop):
    algo = AlgoConfig(
        kl=KlConfig(coefficient=0.5, place="reward"), advantage=AdvantageConfig(scale="batch"), drop_zero_variance=drop
    )
    groups = [scored_group([1.0, 1.0]), scored_group([0.0, 2.0]), scored_group([3.0, None])]
    kl = [[2.0, 2.0], [0.0, 1.0], [4.0, 9.0]]
    make = batcher(algo)
    filtered = make.filter(groups, kl)
    assert filtered.places == ((1,) if drop else (0, 1))
    deducted = [0.0, 0.0, 0.0, 1.5, 1.0]
    mean = sum(deducted) / 5
    spread = math.sqrt(sum((r - mean) ** 2 for r in deducted) / 4) + 1e-4
    advantages = [s.advantage for s in make.sequences(groups, filtered, version=5, kl=kl)]
    expected = [-0.75 / spread, 0.75 / spread]
    assert advantages == pytest.approx(expected if drop else [0.0, 0.0, *expected])


def test_equal_rewards_that_differ_once_the_divergence_is_deducted_teach():
    algo = AlgoConfig(kl=KlConfig(coefficient=0.5, place="reward"), advantage=AdvantageConfig(scale="none"))
    groups, kl = [scored_group([1.0, 1.0])], [[2.0, 0.0]]
    make = batcher(algo)
    sequences = make.sequences(groups, make.filter(groups, kl), version=5, kl=kl)
    assert [s.advantage for s in sequences] == pytest.approx([-0.5, 0.5])
    # Where groups are resampled, this one was replaced before that could be known.
    assert batcher(algo.model_copy(update={"resample": True})).filter(groups, kl).places == ()


def test_all_completions_are_shown_to_the_reference_in_their_order():
    groups = [scored_group([1.0, None]), scored_group([None, None]), scored_group([2.0, 2.0])]
    shown = batcher(AlgoConfig()).all_sequences(groups)
    assert [s.group_index for s in shown] == [0, 0, 1, 1, 2, 2]
    assert all(s.completion_ids == (7, 8) for s in shown)


@pytest.mark.parametrize(
    ("algo", "drops"),
    [
        ({}, True),
        ({"drop_zero_variance": False}, False),
        ({"kl": {"coefficient": 0.1}}, False),
        ({"kl": {"coefficient": 0.1, "place": "reward"}}, True),
        ({"entropy": {"bonus": 0.1}}, False),
        ({"entropy": {"top_share": 0.2}}, True),
        ({"kl": {"coefficient": 0.1}, "resample": True}, True),
    ],
)
def test_groups_of_equal_rewards_stay_where_the_loss_has_a_term_beside_the_advantage(algo, drops):
    algo = AlgoConfig.model_validate(algo)
    groups = [scored_group([1.0, 1.0]), scored_group([0.0, 1.0])]
    assert algo.drops_equal_groups == drops
    assert batcher(algo).filter(groups).places == ((1,) if drops else (0, 1))
    # What a loss divides by: the sequences that the learner is given.
    assert sum(s.counted for s in sequences_of(groups, algo)) == (2 if drops else 4)
