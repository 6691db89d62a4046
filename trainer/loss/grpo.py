"""GRPO: the clipped surrogate, averaged over each sequence and then over sequences.

L = 1/N sum_i 1/|o_i| sum_t l_it (DeepSeekMath, arXiv 2402.03300, eq. 3, with the outcome advantage)."""

import torch

from trainer.loss.clipped import Clipped
from trainer.loss.scale import sequence_mean
from trainer.loss.tokens import LossTokens, LossTotals


class Grpo(Clipped):
    def scale(self, tokens: LossTokens, totals: LossTotals) -> torch.Tensor:
        return sequence_mean(tokens, totals)
