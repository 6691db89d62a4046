"""BNPO's normalisation: the clipped surrogate averaged over the tokens of the update.

L = 1/(sum_i |o_i|) sum_i sum_t l_it over one optimizer update (TRL's loss_type="bnpo", whose update is one
micro-batch there; here it is the whole update, so that dividing it into micro-batches changes nothing). Differs from
`dapo` when a step makes several updates."""

from dataclasses import dataclass

import torch

from conf.schema.algo import BnpoLoss
from trainer.loss.clipped import clipped_surrogate
from trainer.loss.scale import update_token_mean
from trainer.loss.tokens import LossTokens, LossTotals
from trainer.loss.variant import Surrogate


@dataclass(frozen=True, slots=True)
class Bnpo:
    config: BnpoLoss

    def surrogate(self, tokens: LossTokens) -> Surrogate:
        return clipped_surrogate(
            tokens.logp - tokens.old_logp,
            tokens.advantage,
            epsilon_low=self.config.epsilon_low,
            epsilon_high=self.config.epsilon_high,
            delta=self.config.delta,
        )

    def scale(self, tokens: LossTokens, totals: LossTotals) -> torch.Tensor:
        return update_token_mean(tokens, totals)
