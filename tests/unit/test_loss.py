"""Loss variants on known numbers, masking without traces, and invariance to how a batch is divided."""

import math

import pytest
import torch

from conf.schema.algo import (
    AlgoConfig,
    BnpoLoss,
    CispoLoss,
    DapoLoss,
    DrGrpoLoss,
    GrpoLoss,
    GspoLoss,
    ImportanceConfig,
    KlConfig,
    SapoLoss,
)
from trainer.loss.kl import k1, k2, k3
from trainer.loss.objective import Objective
from trainer.loss.statistics import loss_metrics
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
        entropy=noise(1.0).abs(),
        reference_logp=old + noise(0.4),
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


@pytest.mark.parametrize("loss", VARIANTS, ids=lambda v: v.type)
@pytest.mark.parametrize("mode", ["token_truncate", "sequence_mask"])
def test_loss_and_gradient_do_not_depend_on_the_division(loss, mode):
    algo = AlgoConfig(loss=loss, kl=KlConfig(coefficient=0.1), importance=ImportanceConfig(mode=mode, cap=1.5))
    objective = Objective(algo)
    tokens, keep = random_tokens()
    whole = objective(tokens, keep, TOTALS)
    (expected,) = torch.autograd.grad(whole.loss, tokens.logp)
    for parts in ([[0, 1, 2], [3, 4, 5]], [[5, 0], [4], [2, 1, 3]]):
        losses, gradient = 0.0, torch.zeros_like(tokens.logp)
        statistics = None
        for members in parts:
            chosen = torch.isin(tokens.sequence, torch.tensor(members))
            relabel = {old: new for new, old in enumerate(members)}
            piece = tokens.select(chosen)
            sequence = torch.tensor([relabel[int(s)] for s in piece.sequence])
            piece = LossTokens(
                logp=piece.logp,
                old_logp=piece.old_logp,
                engine_logp=piece.engine_logp,
                advantage=piece.advantage,
                sequence=sequence,
                sequences=len(members),
                entropy=piece.entropy,
                reference_logp=piece.reference_logp,
            )
            part = objective(piece, torch.ones(len(sequence), dtype=torch.bool), TOTALS)
            losses += part.loss.item()
            gradient += torch.autograd.grad(part.loss, tokens.logp)[0]
            statistics = part.statistics if statistics is None else statistics + part.statistics
        assert losses == pytest.approx(whole.loss.item(), rel=1e-10)
        torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-12)
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
