"""How per-token losses add up to the loss of one optimizer update: [T] factors, so that the loss is sum(factor *
token loss).

Every factor holds global counts, so the sum over ranks, micro-batches and rows does not depend on how the batch is
divided.
"""

import torch

from trainer.loss.tokens import LossTokens, LossTotals


def sequence_mean(tokens: LossTokens, totals: LossTotals) -> torch.Tensor:
    """1 / (|o_i| * sequences): the mean over sequences of each one's mean over its tokens."""
    return 1.0 / (tokens.lengths()[tokens.sequence] * max(totals.sequences, 1.0))


def update_token_mean(tokens: LossTokens, totals: LossTotals) -> torch.Tensor:
    """1 / tokens of this update."""
    return torch.full_like(tokens.advantage, 1.0 / max(totals.tokens, 1.0))


def step_token_mean(tokens: LossTokens, totals: LossTotals) -> torch.Tensor:
    """1 / mean tokens of the step's updates: a token weighs the same in each of them."""
    return torch.full_like(tokens.advantage, 1.0 / max(totals.step_tokens, 1.0))


def fixed_length(tokens: LossTokens, totals: LossTotals) -> torch.Tensor:
    """1 / (sequences * completion budget): long and short completions weigh the same per token, without length bias."""
    return torch.full_like(tokens.advantage, 1.0 / (max(totals.sequences, 1.0) * totals.completion_budget))
