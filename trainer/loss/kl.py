"""Per-token estimates of KL(policy || reference) from sampled tokens; all tensors [T], differentiable in `logp`.

With d = reference - logp (Schulman, "Approximating KL divergence", 2020): k1 = -d, k2 = d^2 / 2, k3 = exp(d) - d - 1.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch

Estimator = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def k1(logp: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Unbiased, of high variance, may be negative; as a loss its expected gradient is zero."""
    return logp - reference


def k2(logp: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Biased, of low variance, never negative."""
    return 0.5 * (logp - reference) ** 2


def k3(logp: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Unbiased, never negative; GRPO's estimator (arXiv 2402.03300, eq. 4)."""
    difference = reference - logp
    return torch.exp(difference) - difference - 1.0


ESTIMATORS: Mapping[str, Estimator] = MappingProxyType({"k1": k1, "k2": k2, "k3": k3})
