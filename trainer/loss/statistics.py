"""Sums and maxima of a forward pass that add up over micro-batches and ranks, and the metrics they become.

Guarantees: every rank holds the same names in the same order, so that the values reduce as one vector.
"""

import math
from dataclasses import dataclass

import torch

from trainer.loss.importance import ImportanceWeights
from trainer.loss.kl import k3
from trainer.loss.tokens import LossTokens
from trainer.loss.variant import Surrogate

SUMS = (
    "loss",
    "tokens",
    "active",
    "staleness",
    "sequences",
    "entropy",
    "kl_reference",
    "kl_old",
    "ratio",
    "clip_low",
    "clip_high",
    "advantage_abs",
    "logp_abs",
    "fresh",
    "fresh_logp_abs",
    "weights",
    "weight",
    "weight_squared",
    "weight_capped",
)
MAXIMA = ("ratio", "negative_ratio", "logp_abs", "log_weight", "staleness")
_WEIGHT, _SQUARED, _LOG_WEIGHT = SUMS.index("weight"), SUMS.index("weight_squared"), MAXIMA.index("log_weight")


@dataclass(frozen=True, kw_only=True, slots=True)
class Statistics:
    sums: torch.Tensor
    """[len(SUMS)] float64. `weight` and `weight_squared` are of importance weights over the largest of them, whose
    logarithm `maxima` holds: weights of long sequences are all 0, or infinite, as they are."""
    maxima: torch.Tensor
    """[len(MAXIMA)] float64; -inf where nothing was seen."""

    def __add__(self, other: "Statistics") -> "Statistics":
        maxima = torch.maximum(self.maxima, other.maxima)
        return Statistics(sums=self.sums_beside(maxima) + other.sums_beside(maxima), maxima=maxima)

    def sums_beside(self, maxima: torch.Tensor) -> torch.Tensor:
        """`sums` with the weights over the largest of all, as `maxima` [len(MAXIMA)] has it: what adds up."""
        own, largest = float(self.maxima[_LOG_WEIGHT]), float(maxima[_LOG_WEIGHT])
        sums = self.sums.clone()
        if own != largest:
            sums[_WEIGHT] *= _exp(own - largest)
            sums[_SQUARED] *= _exp(2.0 * (own - largest))
        return sums


@torch.no_grad()
def token_statistics(
    tokens: LossTokens,
    surrogate: Surrogate,
    weights: ImportanceWeights,
    kl: torch.Tensor | None,
    loss: torch.Tensor,
) -> Statistics:
    """Statistics of selected tokens. `surrogate` holds those that enter the policy gradient; `kl` is [T] or None,
    `loss` the scalar share of the objective."""
    logp = tokens.logp.detach()
    distance = (logp - tokens.engine_logp).abs()
    present = torch.zeros(tokens.sequences, device=logp.device).index_fill(0, tokens.sequence, 1.0)
    by_token = weights.log.shape == logp.shape
    log_weight = (weights.log if by_token else weights.log[present > 0]).double()
    capped = weights.capped if by_token else weights.capped[present > 0]
    largest = log_weight.max() if log_weight.numel() else log_weight.new_tensor(-math.inf)
    # Where every weight is 0, none is anything of the largest.
    weight = torch.exp(log_weight - largest) if largest != -math.inf else torch.zeros_like(log_weight)
    count = float(logp.numel())
    staleness = torch.zeros_like(distance) if tokens.staleness is None else tokens.staleness
    fresh = staleness == 0
    sums = {
        "loss": loss.detach(),
        "tokens": count,
        "active": float(surrogate.ratio.numel()),
        "staleness": staleness.sum(),
        "sequences": present.sum(),
        "entropy": 0.0 if tokens.entropy is None else tokens.entropy.detach().sum(),
        "kl_reference": 0.0 if kl is None else kl.sum(),
        "kl_old": k3(logp.double(), tokens.old_logp.double()).sum(),
        "ratio": surrogate.ratio.sum(),
        "clip_low": surrogate.clipped_low.sum(),
        "clip_high": surrogate.clipped_high.sum(),
        "advantage_abs": tokens.advantage.abs().sum(),
        "logp_abs": distance.sum(),
        "fresh": fresh.sum(),
        "fresh_logp_abs": distance[fresh].sum(),
        "weights": float(weight.numel()),
        "weight": weight.sum(),
        "weight_squared": (weight**2).sum(),
        "weight_capped": capped.sum(),
    }
    maxima = {
        "ratio": surrogate.ratio,
        "negative_ratio": -surrogate.ratio,
        "logp_abs": distance,
        "log_weight": log_weight,
        "staleness": staleness,
    }
    return Statistics(
        sums=torch.tensor([float(sums[name]) for name in SUMS], dtype=torch.float64),
        maxima=torch.tensor(
            [float(maxima[name].max()) if maxima[name].numel() else -math.inf for name in MAXIMA], dtype=torch.float64
        ),
    )


def no_statistics() -> Statistics:
    """The neutral element of addition."""
    return Statistics(
        sums=torch.zeros(len(SUMS), dtype=torch.float64),
        maxima=torch.full((len(MAXIMA),), -math.inf, dtype=torch.float64),
    )


def loss_metrics(statistics: Statistics, *, with_reference: bool) -> dict[str, float]:
    """Metrics of one update from globally reduced statistics; empty when no token was trained.

    effective_sample_share is (sum w)^2 / (n sum w^2), Kish's effective sample size over the number of weights, which
    does not depend on their scale; 0 where every weight is exactly 0.
    """
    total = dict(zip(SUMS, statistics.sums.tolist(), strict=True))
    largest = dict(zip(MAXIMA, statistics.maxima.tolist(), strict=True))
    tokens, weights = total["tokens"], total["weights"]
    if tokens == 0:
        return {}
    metrics = {
        "policy/loss": total["loss"],
        "policy/entropy": total["entropy"] / tokens,
        "policy/kl_old": total["kl_old"] / tokens,
        "policy/active_share": total["active"] / tokens,
        "policy/advantage_abs_mean": total["advantage_abs"] / tokens,
        "mismatch/logp_abs_mean": total["logp_abs"] / tokens,
        "mismatch/logp_abs_max": largest["logp_abs"],
        "mismatch/weight_mean": _exp(largest["log_weight"] + _log(total["weight"] / weights)),
        "mismatch/weight_max": _exp(largest["log_weight"]),
        "mismatch/truncated_share": total["weight_capped"] / weights,
        "mismatch/effective_sample_share": (
            total["weight"] ** 2 / (weights * total["weight_squared"]) if total["weight_squared"] else 0.0
        ),
        "async/token_staleness_mean": total["staleness"] / tokens,
        "async/token_staleness_max": largest["staleness"],
    }
    if total["active"]:
        metrics |= {
            "policy/ratio_mean": total["ratio"] / total["active"],
            "policy/ratio_min": -largest["negative_ratio"],
            "policy/ratio_max": largest["ratio"],
            "policy/clip_low_share": total["clip_low"] / total["active"],
            "policy/clip_high_share": total["clip_high"] / total["active"],
        }
    if with_reference:
        metrics["policy/kl_reference"] = total["kl_reference"] / tokens
    return metrics


def _exp(value: float) -> float:
    """Infinite where a float is too small for it."""
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


def _log(value: float) -> float:
    return math.log(value) if value else -math.inf
