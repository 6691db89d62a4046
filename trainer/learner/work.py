"""One optimizer update as this rank sees it: its forward passes, and counts over all ranks."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist

from conf.schema.learner import LearnerConfig
from trainer.carriers import TrainingSequence
from trainer.learner.packing.batch import PackedBatch
from trainer.learner.packing.padded import pack_padded
from trainer.learner.packing.shared_prefix import pack_shared_prefix

PACKERS = {"padded": pack_padded, "shared_prefix": pack_shared_prefix}

IDLE = TrainingSequence(group_index=0, prompt_ids=(0,), completion_ids=(0,), logprobs=(0.0,), advantage=0.0)
"""What a rank forwards, and selects nothing of, while another rank has more to do: sharded parameters need every
rank."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    batches: list[PackedBatch]
    """As many on every rank; the ones from `own` on are idle."""
    own: int
    sequences: float
    """Over all ranks, those that a loss divides by."""
    tokens: float
    """Over all ranks, completion tokens that are not masked."""


def divide_work(sequences: Sequence[TrainingSequence], config: LearnerConfig, device: str) -> Work:
    """Packs what is not masked of `sequences`. Collective. Raises SequenceTooLong."""
    packer = PACKERS[config.packing]
    trained = [s for s in sequences if not s.masked]
    batches = packer(trained, budget=config.micro_batch_tokens)
    own = len(batches)
    tokens = sum(len(s.completion_ids) for s in trained)
    counted = sum(s.counted for s in sequences)
    sums = all_reduce(torch.tensor([counted, tokens], dtype=torch.float64), dist.ReduceOp.SUM, device)
    passes = int(all_reduce(torch.tensor([float(own)]), dist.ReduceOp.MAX, device)[0])
    batches += packer([IDLE], budget=config.micro_batch_tokens) * (passes - own)
    return Work(
        batches=[batch.to(device) for batch in batches], own=own, sequences=float(sums[0]), tokens=float(sums[1])
    )


def tokens_per_update(work: Sequence[Work]) -> float:
    """Trained tokens of a step over its updates; those without tokens, which are not made, do not count."""
    return sum(one.tokens for one in work) / max(1, sum(one.tokens > 0 for one in work))


def all_reduce(values: torch.Tensor, operation: dist.ReduceOp, device: str) -> torch.Tensor:
    """`values` reduced over all ranks, on the CPU."""
    values = values.to(device, copy=True)
    dist.all_reduce(values, op=operation)
    return values.cpu()
