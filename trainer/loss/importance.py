"""Weights that correct for the engine's probabilities differing from the learner's.

w = exp(old - engine), a token's or (summed over the sequence) a sequence's; truncated at `cap`, or masked to 0 above it
(truncated importance sampling: Yao et al., "Your efficient RL framework secretly brings you off-policy RL training",
2025; the four modes and the cap are those of TRL's vllm_importance_sampling_mode).
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
    raw: torch.Tensor
    """[T] token weights, or [S] sequence weights, before the cap."""
    capped: torch.Tensor
    """Bool, the shape of `raw`: above the cap, and therefore truncated or masked."""


@torch.no_grad()
def importance_weights(tokens: LossTokens, config: ImportanceConfig) -> ImportanceWeights:
    """Weights for every token; with mode "none" the factors are 1 and `raw` still tells the token weights, for the
    metrics."""
    difference = tokens.old_logp - tokens.engine_logp
    if config.mode == "none":
        raw = torch.exp(difference)
        return ImportanceWeights(token=torch.ones_like(raw), raw=raw, capped=torch.zeros_like(raw, dtype=torch.bool))
    by_sequence = config.mode.startswith("sequence")
    raw = torch.exp(tokens.sum_by_sequence(difference) if by_sequence else difference)
    capped = raw > config.cap
    bound = config.cap if config.mode.endswith("truncate") else 0.0
    weights = torch.where(capped, bound, raw)
    return ImportanceWeights(token=weights[tokens.sequence] if by_sequence else weights, raw=raw, capped=capped)
