"""One shared-prefix row for tests of attention, and what its tokens may see."""

from collections.abc import Sequence

import torch

from trainer.carriers import TrainingSequence
from trainer.learner.packing.batch import PackedBatch
from trainer.learner.packing.shared_prefix import pack_shared_prefix

Lengths = Sequence[tuple[int, Sequence[int]]]
"""Of each group: tokens of the prompt, and of each completion."""


def shared_row(lengths: Lengths) -> tuple[PackedBatch, torch.Tensor]:
    """A row of these groups, in an order of its own, and [N, N] bool: which key (column) a query may see."""
    sequences = [
        TrainingSequence(
            group_index=g, prompt_ids=(0,) * prompt, completion_ids=(m,) * n, logprobs=(0.0,) * n, advantage=0.0
        )
        for g, (prompt, completions) in enumerate(lengths)
        for m, n in enumerate(completions, start=1)
    ]
    (batch,) = pack_shared_prefix(sequences, budget=10_000)
    member, place = batch.input_ids[0], torch.arange(batch.forwarded)
    group = (batch.position_ids[0] == 0).cumsum(0)
    same = (member == 0) | (member == member[:, None])
    return batch, (group == group[:, None]) & (place <= place[:, None]) & same
