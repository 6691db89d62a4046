"""GSPO: one importance ratio a sequence, clipped as a whole.

s_i = exp(1/|o_i| sum_t (logp_it - old_it)), L = 1/N sum_i -min(s_i A_i, clip(s_i) A_i) (arXiv 2507.18071, eq. 5 and 7).
"""

from dataclasses import dataclass

import torch

from conf.schema.algo import GspoLoss
from trainer.loss.clipped import clipped_surrogate
from trainer.loss.scale import sequence_mean
from trainer.loss.tokens import LossTokens, LossTotals
from trainer.loss.variant import Surrogate


@dataclass(frozen=True, slots=True)
class Gspo:
    config: GspoLoss

    def surrogate(self, tokens: LossTokens) -> Surrogate:
        log_ratio = tokens.mean_by_sequence(tokens.logp - tokens.old_logp)[tokens.sequence]
        return clipped_surrogate(
            log_ratio,
            tokens.advantage,
            epsilon_low=self.config.epsilon_low,
            epsilon_high=self.config.epsilon_high,
            delta=self.config.delta,
        )

    def scale(self, tokens: LossTokens, totals: LossTotals) -> torch.Tensor:
        return sequence_mean(tokens, totals)
