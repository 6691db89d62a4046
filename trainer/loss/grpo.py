"""GRPO: the clipped surrogate, averaged over each sequence and then over sequences.

L = 1/N sum_i 1/|o_i| sum_t l_it (DeepSeekMath, arXiv 2402.03300, eq. 3, with the outcome advantage)."""

from dataclasses import dataclass

import torch

from conf.schema.algo import GrpoLoss
from trainer.loss.clipped import clipped_surrogate
from trainer.loss.scale import sequence_mean
from trainer.loss.tokens import LossTokens, LossTotals
from trainer.loss.variant import Surrogate


@dataclass(frozen=True, slots=True)
class Grpo:
    config: GrpoLoss

    def surrogate(self, tokens: LossTokens) -> Surrogate:
        return clipped_surrogate(
            tokens.logp - tokens.old_logp,
            tokens.advantage,
            epsilon_low=self.config.epsilon_low,
            epsilon_high=self.config.epsilon_high,
            delta=self.config.delta,
        )

    def scale(self, tokens: LossTokens, totals: LossTotals) -> torch.Tensor:
        return sequence_mean(tokens, totals)
