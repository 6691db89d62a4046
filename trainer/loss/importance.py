"""Weights that correct for the engine's probabilities differing from the learner's, and the tokens they rule out.

w = exp(old - engine), a token's or (summed over the sequence) a sequence's; kept within [floor, cap], or ruled out
beyond (truncated importance sampling: Yao et al., "Your efficient RL framework secretly brings you off-policy RL
training", 2025; the four modes and the bounds are those of TRL's vllm_importance_sampling_mode).
"""

from dataclasses import dataclass

import torch

from conf.schema.algo import ImportanceConfig
from trainer.loss.tokens import LossTokens


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportanceWeights:
    """All detached."""

    token: torch.Tensor
    """[T], the factor of each token's surrogate."""
    kept: torch.Tensor
    """[T] bool: False for tokens that are ruled out, which the loss must leave out rather than multiply by 0."""
    log: torch.Tensor
    """[T], the logarithms of token weights, or [S] of sequence weights, before the cap: a long sequence's own weight is
    easily beyond what a float can hold."""
    capped: torch.Tensor
    """Bool, the shape of `log`: outside the bounds, and therefore truncated or masked."""


@torch.no_grad()
def importance_weights(tokens: LossTokens, config: ImportanceConfig) -> ImportanceWeights:
    """Weights for every token; with mode "none" the factors are 1 and `log` still tells the token weights, for the
    metrics."""
    difference = tokens.old_logp - tokens.engine_logp
    kept = _young(tokens, config.max_token_staleness)
    if config.mode == "none":
        none = torch.zeros_like(difference, dtype=torch.bool)
        return ImportanceWeights(token=torch.ones_like(difference), kept=kept, log=difference, capped=none)
    by_sequence = config.mode.startswith("sequence")
    log = tokens.sum_by_sequence(difference) if by_sequence else difference
    raw = torch.exp(log)
    floor = 0.0 if config.floor is None else config.floor
    capped = (raw > config.cap) | (raw < floor)
    bounded = raw.clamp(floor, config.cap)
    if config.mode.endswith("mask"):
        kept = kept & ~(capped[tokens.sequence] if by_sequence else capped)
    return ImportanceWeights(
        token=bounded[tokens.sequence] if by_sequence else bounded, kept=kept, log=log, capped=capped
    )


def _young(tokens: LossTokens, limit: int | None) -> torch.Tensor:
    if limit is None or tokens.staleness is None:
        return torch.ones_like(tokens.advantage, dtype=torch.bool)
    return tokens.staleness <= limit
