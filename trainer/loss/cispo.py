"""CISPO: the ratio is a capped, detached weight of the policy gradient, so that no token's gradient is cut off.

l_it = -sg(min(r_it, cap)) * A_i * logp_it, averaged over all tokens of the step (MiniMax-M1, arXiv 2506.13585).
"""

from dataclasses import dataclass

import torch

from conf.schema.algo import CispoLoss
from trainer.loss.scale import step_token_mean
from trainer.loss.tokens import LossTokens, LossTotals
from trainer.loss.variant import Surrogate


@dataclass(frozen=True, slots=True)
class Cispo:
    config: CispoLoss

    def log_ratio(self, tokens: LossTokens) -> torch.Tensor:
        return tokens.logp.detach() - tokens.old_logp

    def surrogate(self, log_ratio: torch.Tensor, advantage: torch.Tensor, logp: torch.Tensor) -> Surrogate:
        ratio = torch.exp(log_ratio)
        capped = torch.clamp(ratio, max=self.config.ratio_cap)
        return Surrogate(
            loss=-capped * advantage * logp,
            ratio=ratio,
            clipped_low=torch.zeros_like(ratio, dtype=torch.bool),
            clipped_high=(ratio > self.config.ratio_cap) & (advantage > 0),
        )

    def scale(self, tokens: LossTokens, totals: LossTotals) -> torch.Tensor:
        return step_token_mean(tokens, totals)
