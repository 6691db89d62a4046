"""Losses far from the policy that sampled: value and gradient are the formula's, computed here by hand in float64, also
where an exponential overflows on the way to it."""

import math
from dataclasses import replace

import pytest
import torch

from conf.schema.algo import AlgoConfig, CispoLoss, DapoLoss, GrpoLoss, GspoLoss, ImportanceConfig, SapoLoss
from trainer.loss.objective import Objective
from trainer.loss.statistics import loss_metrics, no_statistics
from trainer.loss.tokens import LossTokens, LossTotals

LOG_RATIOS = [-1000.0, -100.0, -0.3, -0.05, 0.0, 0.05, 0.3, 89.0, 100.0, 1000.0]
ONE = LossTotals(sequences=1.0, tokens=1.0, step_tokens=1.0, completion_budget=1)
CLIPPED = DapoLoss(epsilon_low=0.2, epsilon_high=0.28)
DUAL = GrpoLoss(epsilon_low=0.2, epsilon_high=0.28, delta=3.0)
SAPO = SapoLoss(temperature_positive=1.0, temperature_negative=1.05)


def power(value: float) -> float:
    return math.exp(value) if value < 709 else math.inf


def clipped(loss: GrpoLoss | DapoLoss | GspoLoss, log_ratio: float, advantage: float) -> tuple[float, float]:
    """-min(min(r, delta) A, clip(r) A) and its derivative by log r: -r A where r itself is the smaller one."""
    ratio, low, high = power(log_ratio), 1 - loss.epsilon_low, 1 + loss.epsilon_high
    if advantage == 0:
        return 0.0, 0.0
    least = low if advantage < 0 else 0.0
    most = high if advantage > 0 else math.inf if loss.delta is None else loss.delta
    value = -advantage * min(max(ratio, least), most)
    return value, -advantage * ratio if least <= ratio <= most else 0.0


def sapo(loss: SapoLoss, log_ratio: float, advantage: float) -> tuple[float, float]:
    """-4/tau sigmoid(tau (r - 1)) A; derivative -4 s (1 - s) r A, with 1 - s = exp(-x) / (1 + exp(-x))."""
    tau = loss.temperature_positive if advantage > 0 else loss.temperature_negative
    ratio = power(log_ratio)
    away = math.exp(-min(tau * (ratio - 1), 700.0))
    gate = 1 / (1 + away)
    slope = gate * gate * away * ratio if ratio < 600 else 0.0
    return -4 / tau * gate * advantage, -4 * slope * advantage


def cispo(loss: CispoLoss, log_ratio: float, advantage: float, logp: float) -> tuple[float, float]:
    capped = min(power(log_ratio), loss.ratio_cap)
    return -capped * advantage * logp, -capped * advantage


def one_token(log_ratio: float, advantage: float, dtype: torch.dtype) -> LossTokens:
    logp = torch.tensor([-2.0], dtype=dtype)
    return LossTokens(
        logp=logp.clone().requires_grad_(),
        old_logp=logp - log_ratio,
        engine_logp=logp - log_ratio,
        advantage=torch.tensor([advantage], dtype=dtype),
        sequence=torch.zeros(1, dtype=torch.int64),
        sequences=1,
    )


@pytest.mark.parametrize("advantage", [1.5, -1.5, 0.0])
@pytest.mark.parametrize("log_ratio", LOG_RATIOS)
@pytest.mark.parametrize(
    "loss", [CLIPPED, DUAL, GspoLoss(), SAPO, CispoLoss()], ids=["clip", "delta", "gspo", "sapo", "cispo"]
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_value_and_gradient_are_the_formulas(loss, log_ratio, advantage, dtype):
    tokens = one_token(log_ratio, advantage, dtype)
    algo = AlgoConfig(loss=loss, importance=ImportanceConfig(mode="none"))
    part = Objective(algo)(tokens, torch.ones(1, dtype=torch.bool), ONE)
    (gradient,) = torch.autograd.grad(part.loss, tokens.logp)
    if isinstance(loss, SapoLoss):
        value, slope = sapo(loss, log_ratio, advantage)
    elif isinstance(loss, CispoLoss):
        value, slope = cispo(loss, log_ratio, advantage, -2.0)
    else:
        value, slope = clipped(loss, log_ratio, advantage)
    # What a float32 cannot hold is infinite there, and never nan.
    expected = torch.tensor([value, slope], dtype=torch.float64).to(dtype)
    # SAPO's temperatures are float32, as TRL's.
    relative = 1e-5 if dtype == torch.float32 else 1e-6 if isinstance(loss, SapoLoss) else 1e-12
    torch.testing.assert_close(torch.stack([part.loss.detach(), gradient[0]]), expected, rtol=relative, atol=1e-7)


@pytest.mark.parametrize(
    "loss", [CLIPPED, DUAL, GspoLoss(), SAPO, CispoLoss()], ids=["clip", "delta", "gspo", "sapo", "cispo"]
)
@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_a_log_probability_that_is_no_number_is_not_hidden(loss, advantage):
    tokens = one_token(math.nan, advantage, torch.float32)
    part = Objective(AlgoConfig(loss=loss, importance=ImportanceConfig(mode="none")))(
        replace(tokens, logp=torch.tensor([math.nan], requires_grad=True)), torch.ones(1, dtype=torch.bool), ONE
    )
    assert math.isnan(part.loss.item())


def sequences(log_weights: list[float], length: int = 4) -> LossTokens:
    """Sequences whose weight's logarithm is as given, in float32 as the learner's."""
    old = torch.tensor([value / length for value in log_weights for _ in range(length)])
    count = len(old)
    return LossTokens(
        logp=torch.zeros(count).requires_grad_(),
        old_logp=old,
        engine_logp=torch.zeros(count),
        advantage=torch.ones(count),
        sequence=torch.arange(len(log_weights)).repeat_interleave(length),
        sequences=len(log_weights),
    )


@pytest.mark.parametrize("mode", ["sequence_truncate", "sequence_mask"])
@pytest.mark.parametrize(
    "log_weights", [[-400.0, -401.0, -404.0], [300.0, 301.0, -400.0], [-2000.0, -2000.0], [-0.5, 0.5]]
)
def test_the_effective_sample_is_the_formulas_where_every_weight_is_0_or_infinite(mode, log_weights):
    objective = Objective(AlgoConfig(importance=ImportanceConfig(mode=mode, cap=3.0)))
    totals = LossTotals(sequences=3.0, tokens=12.0, step_tokens=12.0, completion_budget=4)
    tokens = sequences(log_weights)
    keep = torch.ones(len(tokens.logp), dtype=torch.bool)
    whole = objective(tokens, keep, totals)
    top = max(log_weights)
    weights = [math.exp(value - top) for value in log_weights]
    expected = sum(weights) ** 2 / (len(weights) * sum(w * w for w in weights))
    metrics = loss_metrics(whole.statistics, with_reference=False)
    assert metrics["mismatch/effective_sample_share"] == pytest.approx(expected, rel=1e-5)
    mean, largest = power(top + math.log(sum(weights) / len(weights))), power(top)
    assert metrics["mismatch/weight_mean"] == pytest.approx(mean, rel=1e-4, abs=1e-300)
    assert metrics["mismatch/weight_max"] == pytest.approx(largest, rel=1e-4, abs=1e-300)
    outside = sum(value > math.log(3.0) for value in log_weights)
    assert metrics["mismatch/truncated_share"] == pytest.approx(outside / len(log_weights))
    assert whole.loss.isfinite()
    # The same over forward passes of one sequence each, in any order.
    apart = no_statistics()
    for place in reversed(range(len(log_weights))):
        apart += objective(tokens, tokens.sequence == place, totals).statistics
    assert loss_metrics(apart, with_reference=False) == pytest.approx(metrics, rel=1e-6)


def test_weights_that_are_exactly_0_have_no_effective_sample():
    tokens = sequences([-math.inf, -math.inf])
    part = Objective(AlgoConfig(importance=ImportanceConfig(mode="sequence_truncate")))(
        tokens, torch.ones(8, dtype=torch.bool), replace(ONE, sequences=2.0)
    )
    metrics = loss_metrics(part.statistics, with_reference=False)
    assert (metrics["mismatch/effective_sample_share"], metrics["mismatch/weight_mean"]) == (0.0, 0.0)
