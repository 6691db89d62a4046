"""The clipped surrogate that the PPO family shares."""

import torch

from trainer.loss.variant import Surrogate


def clipped_surrogate(
    log_ratio: torch.Tensor,
    advantage: torch.Tensor,
    *,
    epsilon_low: float,
    epsilon_high: float,
    delta: float | None,
) -> Surrogate:
    """-min(min(r, delta) * A, clip(r, 1 - epsilon_low, 1 + epsilon_high) * A) with r = exp(log_ratio); all tensors [T].

    PPO (arXiv 1707.06347, eq. 7) with DAPO's separate upper bound (arXiv 2503.14476, section 3.1); `delta` bounds
    the ratio where the advantage is negative (INTELLECT-2, arXiv 2505.07291). `delta=None`: unbounded there, as in PPO.
    """
    ratio = torch.exp(log_ratio)
    clipped = torch.clamp(ratio, 1.0 - epsilon_low, 1.0 + epsilon_high)
    bounded = ratio if delta is None else torch.clamp(ratio, max=delta)
    return Surrogate(
        loss=-torch.min(bounded * advantage, clipped * advantage),
        ratio=ratio.detach(),
        clipped_low=(ratio < 1.0 - epsilon_low) & (advantage < 0),
        clipped_high=(ratio > 1.0 + epsilon_high) & (advantage > 0),
    )
