"""Loss variants on known numbers, masking without traces, and invariance to how a batch is divided."""

import math
from dataclasses import replace

import pytest
import torch

from conf.schema.algo import (
    AlgoConfig,
    BnpoLoss,
    CispoLoss,
    DapoLoss,
    DrGrpoLoss,
    EntropyConfig,
    GrpoLoss,
    GspoLoss,
    ImportanceConfig,
    KlConfig,
    SapoLoss,
)
from trainer.learner.errors import WrongWeights
from trainer.learner.weight_check import check_weights, engine_distance
from trainer.loss.kl import k1, k2, k3
from trainer.loss.objective import Objective
from trainer.loss.statistics import loss_metrics, no_statistics
from trainer.loss.tokens import LossTokens, LossTotals

VARIANTS = [GrpoLoss(), DrGrpoLoss(), DapoLoss(), BnpoLoss(), GspoLoss(), CispoLoss(), SapoLoss()]
LENGTHS = [3, 1, 4, 2, 5, 2]


def random_tokens(seed: int = 0) -> tuple[LossTokens, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sequence = torch.repeat_interleave(torch.arange(len(LENGTHS)), torch.tensor(LENGTHS))
    count = len(sequence)

    def noise(scale: float) -> torch.Tensor:
        return scale * torch.randn(count, generator=generator, dtype=torch.float64)

    old = -noise(1.0).abs()
    tokens = LossTokens(
        logp=(old + noise(0.3)).requires_grad_(),
        old_logp=old,
        engine_logp=old + noise(0.5),
        advantage=torch.randn(len(LENGTHS), generator=generator, dtype=torch.float64)[sequence],
        sequence=sequence,
        sequences=len(LENGTHS),
        entropy=noise(1.0).abs().requires_grad_(),
        reference_logp=old + noise(0.4),
        staleness=torch.arange(count, dtype=torch.float64) % 3,
    )
    return tokens, torch.ones(count, dtype=torch.bool)


TOTALS = LossTotals(sequences=6.0, tokens=17.0, step_tokens=20.0, completion_budget=8)


def test_grpo_on_known_numbers():
    tokens = LossTokens(
        logp=torch.log(torch.tensor([0.6, 0.2, 0.5])).requires_grad_(),
        old_logp=torch.log(torch.tensor([0.4, 0.4, 0.5])),
        engine_logp=torch.log(torch.tensor([0.4, 0.4, 0.5])),
        advantage=torch.tensor([1.0, 1.0, -2.0]),
        sequence=torch.tensor([0, 0, 1]),
        sequences=2,
    )
    algo = AlgoConfig(loss=GrpoLoss(epsilon_low=0.2, epsilon_high=0.28), importance=ImportanceConfig(mode="none"))
    totals = LossTotals(sequences=2.0, tokens=3.0, step_tokens=3.0, completion_budget=10)
    part = Objective(algo)(tokens, torch.ones(3, dtype=torch.bool), totals)
    # ratios 1.5 (clipped to 1.28), 0.5, 1; sequence means (-1.28 - 0.5)/2 and 2
    assert part.loss.item() == pytest.approx(((-1.28 - 0.5) / 2 + 2.0) / 2, rel=1e-6)
    part.loss.backward()
    # the clipped token has no gradient; the others -r*A/(|o|*N)
    assert tokens.logp.grad.tolist() == pytest.approx([0.0, -0.5 / 4, 2.0 / 2], rel=1e-6)
    metrics = loss_metrics(part.statistics, with_reference=False)
    assert metrics["policy/clip_high_share"] == pytest.approx(1 / 3)
    assert metrics["policy/ratio_max"] == pytest.approx(1.5)
    assert metrics["policy/ratio_min"] == pytest.approx(0.5)
    assert metrics["policy/advantage_abs_mean"] == pytest.approx(4 / 3)
    assert metrics["mismatch/effective_sample_share"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [(DapoLoss(), -0.9), (BnpoLoss(), -1.2), (DrGrpoLoss(), -0.36), (GrpoLoss(), -0.8)],
    ids=["dapo", "bnpo", "dr_grpo", "grpo"],
)
def test_normalisers_differ_only_in_what_they_divide_by(loss, expected):
    # All ratios 1: token losses are -A. Sequence 0: three tokens of A=1; sequence 1: one token of A=0.6 -> sum -3.6.
    logp = torch.full((4,), -1.0, dtype=torch.float64)
    tokens = LossTokens(
        logp=logp,
        old_logp=logp,
        engine_logp=logp,
        advantage=torch.tensor([1.0, 1.0, 1.0, 0.6], dtype=torch.float64),
        sequence=torch.tensor([0, 0, 0, 1]),
        sequences=2,
    )
    totals = LossTotals(sequences=2.0, tokens=3.0, step_tokens=4.0, completion_budget=5)
    part = Objective(AlgoConfig(loss=loss))(tokens, torch.ones(4, dtype=torch.bool), totals)
    assert part.loss.item() == pytest.approx(expected)


def test_kl_estimators_on_known_numbers():
    logp, reference = torch.tensor([math.log(0.5)]), torch.tensor([math.log(0.25)])
    assert k1(logp, reference).item() == pytest.approx(math.log(2))
    assert k2(logp, reference).item() == pytest.approx(math.log(2) ** 2 / 2)
    assert k3(logp, reference).item() == pytest.approx(0.5 + math.log(2) - 1)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("none", [1.0, 1.0, 1.0]),
        ("token_truncate", [4.0, 3.0, 0.5]),
        ("token_mask", [0.0, 3.0, 0.5]),
        ("sequence_truncate", [4.0, 4.0, 0.5]),
        ("sequence_mask", [0.0, 0.0, 0.5]),
    ],
)
def test_importance_weights_are_truncated_or_masked_by_token_or_sequence(mode, expected):
    old = torch.log(torch.tensor([0.5, 0.3, 0.1], dtype=torch.float64))
    engine = torch.log(torch.tensor([0.1, 0.1, 0.2], dtype=torch.float64))  # ratios 5, 3, 0.5; sequence 0: 15
    tokens = LossTokens(
        logp=old.clone().requires_grad_(),
        old_logp=old,
        engine_logp=engine,
        advantage=torch.ones(3, dtype=torch.float64),
        sequence=torch.tensor([0, 0, 1]),
        sequences=2,
    )
    totals = LossTotals(sequences=2.0, tokens=1.0, step_tokens=1.0, completion_budget=1)
    algo = AlgoConfig(loss=DapoLoss(), importance=ImportanceConfig(mode=mode, cap=4.0))
    part = Objective(algo)(tokens, torch.ones(3, dtype=torch.bool), totals)
    part.loss.backward()
    assert tokens.logp.grad.tolist() == pytest.approx([-w for w in expected])


IMPORTANCE = [
    ImportanceConfig(mode="token_truncate", cap=1.5),
    ImportanceConfig(mode="token_mask", cap=1.5, floor=0.5),
    ImportanceConfig(mode="sequence_mask", cap=1.5),
    ImportanceConfig(mode="sequence_truncate", cap=1.5, max_token_staleness=1),
]


@pytest.mark.parametrize("loss", VARIANTS, ids=lambda v: v.type)
@pytest.mark.parametrize("importance", IMPORTANCE, ids=lambda v: v.mode)
@pytest.mark.parametrize("entropy", [EntropyConfig(), EntropyConfig(bonus=0.3, top_share=0.5)], ids=["all", "top"])
def test_loss_and_gradient_do_not_depend_on_the_division(loss, importance, entropy):
    algo = AlgoConfig(loss=loss, kl=KlConfig(coefficient=0.1), importance=importance, entropy=entropy)
    objective = Objective(algo)
    tokens, keep = random_tokens()
    totals = TOTALS
    if entropy.top_share < 1:
        tokens = replace(tokens, uncertain=tokens.entropy.detach() > 0.6)
        totals = replace(TOTALS, uncertain_tokens=float(tokens.uncertain.sum()))
    whole = objective(tokens, keep, totals)
    leaves = (tokens.logp, tokens.entropy)
    expected = torch.autograd.grad(whole.loss, leaves, allow_unused=True, materialize_grads=True)
    for parts in ([[0, 1, 2], [3, 4, 5]], [[5, 0], [4], [2, 1, 3]]):
        losses, gradients = 0.0, [torch.zeros_like(tokens.logp), torch.zeros_like(tokens.logp)]
        statistics = None
        for members in parts:
            chosen = torch.isin(tokens.sequence, torch.tensor(members))
            relabel = {old: new for new, old in enumerate(members)}
            piece = tokens.select(chosen)
            sequence = torch.tensor([relabel[int(s)] for s in piece.sequence])
            piece = replace(piece, sequence=sequence, sequences=len(members))
            part = objective(piece, torch.ones(len(sequence), dtype=torch.bool), totals)
            losses += part.loss.item()
            pieces = torch.autograd.grad(part.loss, leaves, allow_unused=True, materialize_grads=True)
            gradients = [have + more for have, more in zip(gradients, pieces, strict=True)]
            statistics = part.statistics if statistics is None else statistics + part.statistics
        assert losses == pytest.approx(whole.loss.item(), rel=1e-10)
        torch.testing.assert_close(tuple(gradients), expected, rtol=1e-10, atol=1e-12)
        assert loss_metrics(statistics, with_reference=True) == pytest.approx(
            loss_metrics(whole.statistics, with_reference=True), rel=1e-9
        )


@pytest.mark.parametrize("loss", VARIANTS, ids=lambda v: v.type)
def test_masked_tokens_leave_no_trace_even_when_infinite(loss):
    objective = Objective(AlgoConfig(loss=loss))
    tokens, keep = random_tokens()
    keep = tokens.sequence != 2
    clean = objective(tokens, keep, TOTALS)
    (expected,) = torch.autograd.grad(clean.loss, tokens.logp)
    spoiled_logp = tokens.logp.detach().clone()
    spoiled_logp[~keep] = -math.inf
    spoiled = LossTokens(
        logp=spoiled_logp.requires_grad_(),
        old_logp=torch.where(keep, tokens.old_logp, math.inf),
        engine_logp=torch.where(keep, tokens.engine_logp, math.nan),
        advantage=torch.where(keep, tokens.advantage, math.nan),
        sequence=tokens.sequence,
        sequences=tokens.sequences,
    )
    part = objective(spoiled, keep, TOTALS)
    (gradient,) = torch.autograd.grad(part.loss, spoiled.logp)
    assert part.loss.item() == pytest.approx(clean.loss.item(), rel=1e-12)
    torch.testing.assert_close(gradient, expected)
    assert gradient[~keep].tolist() == [0.0] * 4


@pytest.mark.parametrize("loss", VARIANTS, ids=lambda v: v.type)
def test_nothing_selected_gives_zero_loss_and_zero_gradient(loss):
    tokens, keep = random_tokens()
    part = Objective(AlgoConfig(loss=loss))(tokens, torch.zeros_like(keep), TOTALS)
    part.loss.backward()
    assert part.loss.item() == 0.0
    assert tokens.logp.grad.abs().max().item() == 0.0
    assert loss_metrics(part.statistics, with_reference=False) == {}


def test_a_kl_term_without_reference_is_refused():
    tokens, keep = random_tokens()
    bare = LossTokens(
        logp=tokens.logp,
        old_logp=tokens.old_logp,
        engine_logp=tokens.engine_logp,
        advantage=tokens.advantage,
        sequence=tokens.sequence,
        sequences=tokens.sequences,
    )
    with pytest.raises(ValueError, match="reference"):
        Objective(AlgoConfig(kl=KlConfig(coefficient=0.1)))(bare, keep, TOTALS)


@pytest.mark.parametrize("loss", VARIANTS, ids=lambda v: v.type)
@pytest.mark.parametrize("by", ["weight", "age", "entropy"])
def test_tokens_that_are_ruled_out_leave_no_trace_even_when_their_ratio_is_infinite(loss, by):
    """0 * inf would be NaN, in the loss or in its gradient: what is ruled out must be selected away."""
    tokens, keep = random_tokens()
    spoiled = tokens.sequence == 2
    importance = {
        "weight": ImportanceConfig(mode="sequence_mask", cap=1e6),
        "age": ImportanceConfig(mode="none", max_token_staleness=0),
        "entropy": ImportanceConfig(mode="none"),
    }[by]
    objective = Objective(AlgoConfig(loss=loss, importance=importance))
    choice = {
        "staleness": torch.where(spoiled, 5.0, 0.0) if by == "age" else None,
        "uncertain": ~spoiled if by == "entropy" else None,
    }

    def run(distance: float) -> tuple[float, torch.Tensor]:
        logp = torch.where(spoiled, tokens.old_logp + distance, tokens.logp.detach()).requires_grad_()
        engine = torch.where(spoiled, tokens.old_logp - 800.0, tokens.old_logp)
        part = objective(replace(tokens, logp=logp, engine_logp=engine, **choice), keep, TOTALS)
        return part.loss.item(), torch.autograd.grad(part.loss, logp)[0]

    # exp(800) is infinite in float64
    loss_value, gradient = run(800.0)
    assert math.isfinite(loss_value)
    assert gradient.isfinite().all()
    assert gradient[spoiled].tolist() == [0.0] * 4
    near_value, near_gradient = run(0.1)
    assert loss_value == pytest.approx(near_value, rel=1e-12)
    torch.testing.assert_close(gradient, near_gradient)


def test_the_entropy_bonus_is_a_mean_over_the_tokens_that_count():
    tokens, keep = random_tokens()
    chosen = tokens.entropy.detach() > 0.6
    algo = AlgoConfig(entropy=EntropyConfig(bonus=0.5))
    plain = Objective(AlgoConfig())(tokens, keep, TOTALS).loss.item()
    part = Objective(algo)(tokens, keep, TOTALS)
    assert part.loss.item() == pytest.approx(plain - 0.5 * tokens.entropy.sum().item() / 17)
    part.loss.backward()
    assert tokens.entropy.grad.tolist() == pytest.approx([-0.5 / 17] * 17)
    count = float(chosen.sum())
    some = Objective(algo)(replace(tokens, uncertain=chosen), keep, replace(TOTALS, uncertain_tokens=count))
    none = Objective(AlgoConfig())(replace(tokens, uncertain=chosen), keep, TOTALS)
    expected = none.loss.item() - 0.5 * tokens.entropy[chosen].sum().item() / count
    assert some.loss.item() == pytest.approx(expected)
    metrics = loss_metrics(some.statistics, with_reference=False)
    assert metrics["policy/active_share"] == pytest.approx(count / 17)
    assert metrics["async/token_staleness_max"] == 2.0


def test_the_weight_check_is_of_fresh_tokens_so_that_older_ones_may_have_been_learned_from(monkeypatch):
    """Tokens of older versions are 2 nats away; those of the trained one by 0.25, until none of them is left."""
    monkeypatch.setattr("trainer.learner.weight_check.ENOUGH", 1)
    tokens, keep = random_tokens()
    fresh = tokens.staleness == 0
    drifted = torch.where(fresh, tokens.logp.detach() + 0.25, tokens.logp.detach() - 2.0)
    objective = Objective(AlgoConfig())
    part = objective(replace(tokens, engine_logp=drifted), keep, TOTALS)
    distance, of_fresh = engine_distance(part.statistics)
    assert (distance, of_fresh) == (pytest.approx(0.25), True)
    # A few of them decide nothing beside older ones.
    monkeypatch.setattr("trainer.learner.weight_check.ENOUGH", int(fresh.sum()) + 1)
    assert not engine_distance(part.statistics)[1]
    monkeypatch.setattr("trainer.learner.weight_check.ENOUGH", 1)
    # The other way round: a wrong update is not hidden below the many tokens that agree.
    wrong = torch.where(fresh, tokens.logp.detach() + 4.0, tokens.logp.detach())
    part = objective(replace(tokens, engine_logp=wrong), keep, TOTALS)
    assert engine_distance(part.statistics)[0] == pytest.approx(4.0)
    stale = objective(replace(tokens, engine_logp=drifted, staleness=tokens.staleness + 1), keep, TOTALS)
    distance, of_fresh = engine_distance(stale.statistics)
    assert not of_fresh
    assert distance == pytest.approx((0.25 * fresh.sum().item() + 2.0 * (~fresh).sum().item()) / 17)
    synchronous = objective(replace(tokens, engine_logp=drifted, staleness=None), keep, TOTALS)
    assert engine_distance(synchronous.statistics) == (pytest.approx(distance), True)
    assert math.isnan(engine_distance(no_statistics())[0])


def test_other_weights_are_refused_and_what_was_learned_since_is_not():
    tokens, keep = random_tokens()
    tokens = replace(tokens, staleness=torch.zeros_like(tokens.logp))
    for distance, age, refused in [(0.09, 0, False), (0.11, 0, True), (0.95, 1, False), (1.15, 1, True)]:
        away = replace(tokens, engine_logp=tokens.logp.detach() - distance, staleness=tokens.staleness + age)
        statistics = Objective(AlgoConfig())(away, keep, TOTALS).statistics
        assert check_weights(statistics, None).keys() == ({"mismatch/after_sync_abs_mean"} if age == 0 else set())
        if refused:
            with pytest.raises(WrongWeights, match=f"differ from the learner's by {distance}"):
                check_weights(statistics, 0.1)
        else:
            check_weights(statistics, 0.1)
    with pytest.raises(WrongWeights, match="nan"):
        check_weights(no_statistics(), 0.1)


def test_dual_clip_below_the_clip_range_is_refused():
    with pytest.raises(ValueError, match=r"delta=1.2 must be greater than 1 \+ epsilon_high = 1.28"):
        GrpoLoss(epsilon_high=0.28, delta=1.2)
