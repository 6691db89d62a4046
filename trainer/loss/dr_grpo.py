"""Dr. GRPO: the clipped surrogate over a constant length, which removes GRPO's bias towards long wrong completions.

L = 1/(N * completion budget) sum_i sum_t l_it (arXiv 2503.20783, section 3.2; the constant is TRL's)."""

from dataclasses import dataclass

import torch

from conf.schema.algo import DrGrpoLoss
from trainer.loss.clipped import clipped_surrogate
from trainer.loss.scale import fixed_length
from trainer.loss.tokens import LossTokens, LossTotals
from trainer.loss.variant import Surrogate


@dataclass(frozen=True, slots=True)
class DrGrpo:
    config: DrGrpoLoss

    def surrogate(self, tokens: LossTokens) -> Surrogate:
        return clipped_surrogate(
            tokens.logp - tokens.old_logp,
            tokens.advantage,
            epsilon_low=self.config.epsilon_low,
            epsilon_high=self.config.epsilon_high,
            delta=self.config.delta,
        )

    def scale(self, tokens: LossTokens, totals: LossTotals) -> torch.Tensor:
        return fixed_length(tokens, totals)
