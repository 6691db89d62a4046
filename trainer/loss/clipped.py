"""The clipped surrogate that the PPO family shares; a variant adds how its tokens are averaged."""

import math
from dataclasses import dataclass

import torch

from conf.schema.algo import ClippedLoss
from trainer.loss.tokens import LossTokens
from trainer.loss.variant import Surrogate


@dataclass(frozen=True, slots=True)
class Clipped:
    """One ratio a token. `delta=None`: unbounded where the advantage is negative, as in PPO."""

    config: ClippedLoss

    def log_ratio(self, tokens: LossTokens) -> torch.Tensor:
        return tokens.logp - tokens.old_logp

    def surrogate(self, log_ratio: torch.Tensor, advantage: torch.Tensor, logp: torch.Tensor) -> Surrogate:
        """-min(min(r, delta) * A, clip(r, 1 - epsilon_low, 1 + epsilon_high) * A) with r = exp(log_ratio).

        PPO (arXiv 1707.06347, eq. 7) with DAPO's separate upper bound (arXiv 2503.14476, section 3.1); `delta` bounds
        the ratio where the advantage is negative (dual clip, arXiv 1912.09729, as in INTELLECT-2, arXiv
        2505.07291). This is -A * clamp(r, lower, upper), with bounds that depend on the sign of A alone. Beyond them
        the loss is constant, and no exponential is formed there whose gradient would be 0 * inf.
        """
        low, high, delta = 1.0 - self.config.epsilon_low, 1.0 + self.config.epsilon_high, self.config.delta
        ratio, negative = torch.exp(log_ratio.detach()), advantage < 0
        lower = torch.full_like(ratio, low).where(negative, 0.0)
        upper = torch.full_like(ratio, math.inf if delta is None else delta).where(negative, high)
        # A ratio that is no number is in neither, and stays one.
        beyond = (ratio < lower) | (ratio > upper)
        inside = torch.exp(torch.where(beyond, 0.0, log_ratio))
        bounded = torch.where(beyond, ratio.clamp(lower, upper), inside)
        return Surrogate(
            loss=-bounded * advantage,
            ratio=ratio,
            clipped_low=(ratio < low) & negative,
            clipped_high=(ratio > high) & (advantage > 0),
        )
