"""BNPO's normalisation: the clipped surrogate averaged over the tokens of the update.

L = 1/(sum_i |o_i|) sum_i sum_t l_it over one optimizer update (TRL's loss_type="bnpo", whose update is one
micro-batch there; here it is the whole update, so that dividing it into micro-batches changes nothing). Differs from
`dapo` when a step makes several updates."""

import torch

from trainer.loss.clipped import Clipped
from trainer.loss.scale import update_token_mean
from trainer.loss.tokens import LossTokens, LossTotals


class Bnpo(Clipped):
    def scale(self, tokens: LossTokens, totals: LossTotals) -> torch.Tensor:
        return update_token_mean(tokens, totals)
