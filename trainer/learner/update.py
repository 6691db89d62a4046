"""One optimizer update before it is made: its forward passes, what they are compared with, and what it divides by."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from trainer.learner.packing.batch import PackedBatch
from trainer.learner.work import Work
from trainer.loss.tokens import LossTotals


@dataclass(frozen=True, kw_only=True, slots=True)
class Update:
    """This rank's part of it."""

    work: Work
    totals: LossTotals
    old_logp: list[torch.Tensor] | None = None
    """[T] for each forward pass; None: the policy is compared with itself, and nothing is forwarded a second time."""
    uncertain: list[torch.Tensor] | None = None
    """[T] bool for each forward pass; None: all tokens."""

    def old_logprobs(self) -> list[list[float]]:
        """Of each sequence that is not masked, in their order; empty where the policy is compared with itself."""
        if self.old_logp is None:
            return []
        found: dict[int, list[float]] = {}
        for batch, values in zip(self.work.batches[: self.work.own], self.old_logp, strict=False):
            parts = values.detach().cpu().split(batch.lengths)
            found |= {member: part.tolist() for member, part in zip(batch.members, parts, strict=True)}
        return [found[member] for member in sorted(found)]


def by_pass(work: Work, values: Sequence[Sequence[float]], device: str) -> list[torch.Tensor]:
    """What `Update.old_logprobs` gave, as [T] for each forward pass."""

    def one(batch: PackedBatch) -> torch.Tensor:
        return torch.tensor([v for m in batch.members for v in values[m]], dtype=torch.float32, device=device)

    idle = [torch.zeros_like(batch.engine_logp) for batch in work.batches[work.own :]]
    return [one(batch) for batch in work.batches[: work.own]] + idle


@dataclass(frozen=True, kw_only=True, slots=True)
class MadeUpdate:
    """What became of one update of the last step, as this rank tells it."""

    applied: bool | None
    """False: its gradient was not finite; None: it had no tokens and was not made."""
    old_logprobs: list[list[float]]
    """Of a skipped update, as in `Update.old_logprobs`; otherwise empty."""
