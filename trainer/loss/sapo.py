"""SAPO: a sigmoid gate in place of the hard clip.

l_it = -4/tau * sigmoid(tau * (r_it - 1)) * A_i with one tau for positive and one for other advantages, averaged over
each sequence and then over sequences (arXiv 2511.20347).
"""

from dataclasses import dataclass

import torch

from conf.schema.algo import SapoLoss
from trainer.loss.scale import sequence_mean
from trainer.loss.tokens import LossTokens, LossTotals
from trainer.loss.variant import Surrogate

_OPEN = 1000.0
"""Where a sigmoid is 1 and its derivative, even times a ratio, below what float64 can hold."""


@dataclass(frozen=True, slots=True)
class Sapo:
    config: SapoLoss

    def log_ratio(self, tokens: LossTokens) -> torch.Tensor:
        return tokens.logp - tokens.old_logp

    def surrogate(self, log_ratio: torch.Tensor, advantage: torch.Tensor, logp: torch.Tensor) -> Surrogate:
        positive, negative = self.config.temperature_positive, self.config.temperature_negative
        temperature = torch.where(advantage > 0, positive, negative)  # float32 beside any other, as TRL's
        # There the gate is 4/tau and its gradient 0 in any precision; a larger exponential would make that 0 * inf.
        wide_open = log_ratio.detach() > torch.log1p(_OPEN / temperature)
        ratio = torch.exp(torch.where(wide_open, 0.0, log_ratio))
        gate = torch.where(wide_open, 1.0, torch.sigmoid(temperature * (ratio - 1.0))) * 4.0 / temperature
        never = torch.zeros_like(ratio, dtype=torch.bool)
        seen = torch.exp(log_ratio.detach())
        return Surrogate(loss=-gate * advantage, ratio=seen, clipped_low=never, clipped_high=never)

    def scale(self, tokens: LossTokens, totals: LossTotals) -> torch.Tensor:
        return sequence_mean(tokens, totals)
