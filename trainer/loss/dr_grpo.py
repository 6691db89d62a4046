"""Dr. GRPO: the clipped surrogate over a constant length, which removes GRPO's bias towards long wrong completions.

L = 1/(N * completion budget) sum_i sum_t l_it (arXiv 2503.20783, section 3.2; the constant is TRL's)."""

import torch

from trainer.loss.clipped import Clipped
from trainer.loss.scale import fixed_length
from trainer.loss.tokens import LossTokens, LossTotals


class DrGrpo(Clipped):
    def scale(self, tokens: LossTokens, totals: LossTotals) -> torch.Tensor:
        return fixed_length(tokens, totals)
