"""One row for several groups, each group [prompt][c1]...[cG]: a prompt is forwarded once for all of its completions.

Equal to the padded way by construction of positions and attention (`trainer/learner/prefix_attention.py`); with a
prompt of 1,500 tokens and 32 completions of 300 it forwards 11,100 tokens in place of 57,600.
"""

from collections.abc import Sequence

import torch

from trainer.batch.plan import shared_rows
from trainer.carriers import TrainingSequence
from trainer.learner.packed import PackedBatch, PrefixLayout, completion_tensors


def pack_shared_prefix(sequences: Sequence[TrainingSequence], *, budget: int) -> list[PackedBatch]:
    """Forward passes over all of `sequences`, each of at most `budget` tokens. Raises SequenceTooLong."""
    return [_pack(sequences, groups) for groups in shared_rows(sequences, budget=budget)]


def _pack(sequences: Sequence[TrainingSequence], groups: Sequence[Sequence[int]]) -> PackedBatch:
    tokens: list[int] = []
    positions: list[int] = []
    predict: list[int] = []
    prompt_starts: list[int] = []
    completion_starts: list[list[int]] = []
    for members in groups:
        prompt = sequences[members[0]].prompt_ids
        prompt_starts.append(len(tokens))
        tokens += prompt
        positions += range(len(prompt))
        last = len(tokens) - 1
        starts = []
        for index in members:
            length = len(sequences[index].completion_ids)
            starts.append(len(tokens))
            predict += [last, *range(len(tokens), len(tokens) + length - 1)][:length]
            tokens += sequences[index].completion_ids
            positions += range(len(prompt), len(prompt) + length)
        completion_starts.append(starts)
    flat = tuple(index for members in groups for index in members)
    return PackedBatch(
        input_ids=torch.tensor([tokens], dtype=torch.int64),
        position_ids=torch.tensor([positions], dtype=torch.int64),
        predict=torch.tensor(predict, dtype=torch.int64),
        members=flat,
        lengths=tuple(len(sequences[i].completion_ids) for i in flat),
        layout=_layout(sequences, groups, prompt_starts, completion_starts, len(tokens)),
        **completion_tensors(sequences, flat),
    )


def _layout(
    sequences: Sequence[TrainingSequence],
    groups: Sequence[Sequence[int]],
    prompt_starts: Sequence[int],
    completion_starts: Sequence[Sequence[int]],
    count: int,
) -> PrefixLayout:
    blocks, most = len(groups), max(map(len, groups))
    prompt_lengths = [len(sequences[members[0]].prompt_ids) for members in groups]
    longest_prompt = max(prompt_lengths)
    longest = max(len(sequences[i].completion_ids) for members in groups for i in members)
    prompt = torch.zeros(blocks, longest_prompt, dtype=torch.int64)
    completion = torch.zeros(blocks, most, longest, dtype=torch.int64)
    restore = torch.empty(count, dtype=torch.int64)
    group = torch.empty(count, dtype=torch.int64)
    member = torch.full((count,), -1, dtype=torch.int64)
    offset = blocks * longest_prompt
    for b, members in enumerate(groups):
        start, length = prompt_starts[b], prompt_lengths[b]
        prompt[b, :length] = torch.arange(start, start + length)
        restore[start : start + length] = torch.arange(b * longest_prompt, b * longest_prompt + length)
        group[start : start + length] = b
        for g, index in enumerate(members):
            start, length = completion_starts[b][g], len(sequences[index].completion_ids)
            place = offset + (b * most + g) * longest
            completion[b, g, :length] = torch.arange(start, start + length)
            restore[start : start + length] = torch.arange(place, place + length)
            group[start : start + length] = b
            member[start : start + length] = g
    occupied = torch.zeros(prompt.numel() + completion.numel(), dtype=torch.bool)
    occupied[restore] = True
    return PrefixLayout(
        prompt=prompt,
        prompt_lengths=torch.tensor(prompt_lengths),
        completion=completion,
        restore=restore,
        padding=(~occupied).nonzero().squeeze(1),
        group=group,
        member=member,
    )
