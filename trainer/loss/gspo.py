"""GSPO: one importance ratio a sequence, clipped as a whole.

s_i = exp(1/|o_i| sum_t (logp_it - old_it)), L = 1/N sum_i -min(s_i A_i, clip(s_i) A_i) (arXiv 2507.18071, eq. 5 and 7).
"""

import torch

from trainer.loss.clipped import Clipped
from trainer.loss.scale import sequence_mean
from trainer.loss.tokens import LossTokens, LossTotals


class Gspo(Clipped):
    def log_ratio(self, tokens: LossTokens) -> torch.Tensor:
        return tokens.mean_by_sequence(tokens.logp - tokens.old_logp)[tokens.sequence]

    def scale(self, tokens: LossTokens, totals: LossTotals) -> torch.Tensor:
        return sequence_mean(tokens, totals)
