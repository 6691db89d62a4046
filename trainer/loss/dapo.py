"""DAPO: the clipped surrogate averaged over all tokens of the step, so that long sequences weigh by their tokens.

L = 1/(sum_i |o_i|) sum_i sum_t l_it (arXiv 2503.14476, eq. 8 and section 3.3)."""

from dataclasses import dataclass

import torch

from conf.schema.algo import DapoLoss
from trainer.loss.clipped import clipped_surrogate
from trainer.loss.scale import step_token_mean
from trainer.loss.tokens import LossTokens, LossTotals
from trainer.loss.variant import Surrogate


@dataclass(frozen=True, slots=True)
class Dapo:
    config: DapoLoss

    def surrogate(self, tokens: LossTokens) -> Surrogate:
        return clipped_surrogate(
            tokens.logp - tokens.old_logp,
            tokens.advantage,
            epsilon_low=self.config.epsilon_low,
            epsilon_high=self.config.epsilon_high,
            delta=self.config.delta,
        )

    def scale(self, tokens: LossTokens, totals: LossTotals) -> torch.Tensor:
        return step_token_mean(tokens, totals)
