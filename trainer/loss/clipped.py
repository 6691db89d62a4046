"""The clipped surrogate that the PPO family shares; a variant adds how its tokens are averaged."""

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
        2505.07291).
        """
        low, high, delta = 1.0 - self.config.epsilon_low, 1.0 + self.config.epsilon_high, self.config.delta
        ratio = torch.exp(log_ratio)
        clipped = torch.clamp(ratio, low, high)
        bounded = ratio if delta is None else torch.clamp(ratio, max=delta)
        return Surrogate(
            loss=-torch.min(bounded * advantage, clipped * advantage),
            ratio=ratio.detach(),
            clipped_low=(ratio < low) & (advantage < 0),
            clipped_high=(ratio > high) & (advantage > 0),
        )
