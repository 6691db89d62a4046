"""One row a completion, padded on the right; causal attention then never sees padding, so no mask is needed."""

from collections.abc import Sequence

import torch

from trainer.batch.plan import padded_rows
from trainer.carriers import TrainingSequence
from trainer.learner.packing.batch import PackedBatch, completion_tensors, completion_tokens


def pack_padded(sequences: Sequence[TrainingSequence], *, budget: int) -> list[PackedBatch]:
    """Forward passes over all of `sequences`, each of at most `budget` tokens with padding. Raises SequenceTooLong."""
    return [_pack(sequences, members) for members in padded_rows(sequences, budget=budget)]


def _pack(sequences: Sequence[TrainingSequence], members: Sequence[int]) -> PackedBatch:
    rows = [(*sequences[i].prompt_ids, *sequences[i].completion_ids) for i in members]
    width = max(map(len, rows))
    predict = [
        row * width + len(sequences[i].prompt_ids) - 1 + offset
        for row, i in enumerate(members)
        for offset in range(len(sequences[i].completion_ids))
    ]
    return PackedBatch(
        input_ids=torch.tensor([[*row, *(0,) * (width - len(row))] for row in rows], dtype=torch.int64),
        position_ids=torch.arange(width).expand(len(rows), width).contiguous(),
        predict=torch.tensor(predict, dtype=torch.int64),
        targets=completion_tokens(sequences, members),
        members=tuple(members),
        lengths=tuple(len(sequences[i].completion_ids) for i in members),
        **completion_tensors(sequences, members),
    )
