"""What a loss sees: the completion tokens of one forward pass, ragged and concatenated, and the global counts to
divide by.

Guarantees: a masked token is not there at all (`select`), so that no 0 * inf can arise from one, and no loss knows
padding.
"""

from dataclasses import dataclass, replace

import torch


@dataclass(frozen=True, kw_only=True, slots=True)
class LossTokens:
    """T completion tokens of S whole sequences. A sequence is never divided between two forward passes."""

    logp: torch.Tensor
    """[T] float32, differentiable log-probability of each token under the policy, nats."""
    old_logp: torch.Tensor
    """[T] float32, log-probability under the policy that the ratio compares with."""
    engine_logp: torch.Tensor
    """[T] float32, log-probability under the engine that sampled the token."""
    advantage: torch.Tensor
    """[T] float32, each token carries its sequence's advantage."""
    sequence: torch.Tensor
    """[T] int64 in 0..S-1, which sequence the token belongs to."""
    sequences: int
    """S, masked sequences included."""
    entropy: torch.Tensor | None = None
    """[T] float32, entropy of the policy's next-token distribution, nats."""
    reference_logp: torch.Tensor | None = None
    """[T] float32, log-probability under the reference policy."""
    staleness: torch.Tensor | None = None
    """[T] float32, policy versions between the one that sampled the token and the one that is trained; None: 0."""
    uncertain: torch.Tensor | None = None
    """[T] bool, the tokens of highest entropy, to which the policy gradient is restricted; None: all."""

    def select(self, keep: torch.Tensor) -> "LossTokens":
        """Only the tokens where `keep` ([T] bool) holds."""
        return replace(
            self,
            logp=self.logp[keep],
            old_logp=self.old_logp[keep],
            engine_logp=self.engine_logp[keep],
            advantage=self.advantage[keep],
            sequence=self.sequence[keep],
            entropy=_select(self.entropy, keep),
            reference_logp=_select(self.reference_logp, keep),
            staleness=_select(self.staleness, keep),
            uncertain=_select(self.uncertain, keep),
        )

    def sum_by_sequence(self, values: torch.Tensor) -> torch.Tensor:
        """[T] -> [S], differentiable."""
        return values.new_zeros(self.sequences).index_add(0, self.sequence, values)

    def lengths(self) -> torch.Tensor:
        """[S] float, selected tokens of each sequence; 1 where there is none, so that it divides."""
        return self.sum_by_sequence(torch.ones_like(self.advantage)).clamp(min=1.0)

    def mean_by_sequence(self, values: torch.Tensor) -> torch.Tensor:
        """[T] -> [S], differentiable; 0 for a sequence without selected tokens."""
        return self.sum_by_sequence(values) / self.lengths()


def _select(values: torch.Tensor | None, keep: torch.Tensor) -> torch.Tensor | None:
    return None if values is None else values[keep]


@dataclass(frozen=True, kw_only=True, slots=True)
class LossTotals:
    """Counts over all ranks and micro-batches of one optimizer update; only what enters the loss is counted."""

    sequences: float
    """Those with trained tokens, and truncated ones that are masked."""
    tokens: float
    step_tokens: float
    """Tokens of the whole step over its updates that have any; equals `tokens` when a step makes one update."""
    completion_budget: int
    """Longest completion that sampling allows, tokens."""
    uncertain_tokens: float | None = None
    """Tokens of highest entropy, where the policy gradient is restricted to them; None: all of `tokens`."""
