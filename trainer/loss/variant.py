"""What every loss variant is: a log-ratio, a surrogate of it token by token, and a way to add tokens up.

The three are apart so that the objective can select tokens between them: a token that is left out may then have an
infinite ratio without a trace in loss or gradient (0 * inf is never formed).
"""

from dataclasses import dataclass
from typing import Protocol

import torch

from trainer.loss.tokens import LossTokens, LossTotals


@dataclass(frozen=True, kw_only=True, slots=True)
class Surrogate:
    """Per-token result of a variant."""

    loss: torch.Tensor
    """[T], differentiable; to be minimised."""
    ratio: torch.Tensor
    """[T], detached importance ratio as the variant uses it (a sequence's ratio on each of its tokens)."""
    clipped_low: torch.Tensor
    """[T] bool: the ratio fell below the range where its advantage is negative."""
    clipped_high: torch.Tensor
    """[T] bool: the ratio rose above the range where its advantage is positive."""


class LossVariant(Protocol):
    def log_ratio(self, tokens: LossTokens) -> torch.Tensor:
        """[T], linear in the log-probabilities."""
        ...

    def surrogate(self, log_ratio: torch.Tensor, advantage: torch.Tensor, logp: torch.Tensor) -> Surrogate:
        """Token by token; all arguments [T], those of the tokens that enter the policy gradient."""
        ...

    def scale(self, tokens: LossTokens, totals: LossTotals) -> torch.Tensor:
        """[T] factors by which token losses add up to the loss of the update."""
        ...
