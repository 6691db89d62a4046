"""DAPO: the clipped surrogate averaged over all tokens of the step, so that long sequences weigh by their tokens.

L = 1/(sum_i |o_i|) sum_i sum_t l_it (arXiv 2503.14476, eq. 8 and section 3.3)."""

import torch

from trainer.loss.clipped import Clipped
from trainer.loss.scale import step_token_mean
from trainer.loss.tokens import LossTokens, LossTotals


class Dapo(Clipped):
    def scale(self, tokens: LossTokens, totals: LossTotals) -> torch.Tensor:
        return step_token_mean(tokens, totals)
