"""What every loss variant is: a per-token surrogate and a way to add tokens up."""

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
    def surrogate(self, tokens: LossTokens) -> Surrogate: ...

    def scale(self, tokens: LossTokens, totals: LossTotals) -> torch.Tensor:
        """[T] factors by which token losses add up to the loss of the update."""
        ...
