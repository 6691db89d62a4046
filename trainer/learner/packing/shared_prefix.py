"""One row for several groups, each group [prompt][c1]...[cG]: a prompt is forwarded once for all of its completions,
and a completion once for all that are equal to it.

Equal to the padded way by construction of positions and attention (`trainer/learner/attention/prefix.py`); with a
prompt of 1,500 tokens and 32 completions of 300 it forwards 11,100 tokens in place of 57,600. Equal completions have
equal log-probabilities; each keeps its own terms in the loss, so the sum is what it is without sharing.
"""

from collections.abc import Mapping, Sequence

import torch

from trainer.batch.plan import equal_completions, shared_rows
from trainer.carriers import TrainingSequence
from trainer.learner.packing.batch import PackedBatch, PrefixLayout, completion_tensors, completion_tokens


def pack_shared_prefix(sequences: Sequence[TrainingSequence], *, budget: int) -> list[PackedBatch]:
    """Forward passes over all of `sequences`, each of at most `budget` tokens. Raises SequenceTooLong."""
    copies = {indices[0]: indices for indices in equal_completions(sequences)}
    firsts = list(copies)
    rows = shared_rows([sequences[i] for i in firsts], budget=budget)
    return [_pack(sequences, [[firsts[i] for i in part] for part in groups], copies) for groups in rows]


def _pack(
    sequences: Sequence[TrainingSequence], groups: Sequence[Sequence[int]], copies: Mapping[int, Sequence[int]]
) -> PackedBatch:
    """`groups`: indices of distinct completions; `copies`: those equal to each, itself included."""
    tokens: list[int] = []
    positions: list[int] = []
    predict: list[int] = []
    source: list[int] = []
    for distinct in groups:
        prompt = sequences[distinct[0]].prompt_ids
        tokens += prompt
        positions += range(len(prompt))
        last = len(tokens) - 1
        for index in distinct:
            length = len(sequences[index].completion_ids)
            source += [*range(len(predict), len(predict) + length)] * len(copies[index])
            predict += [last, *range(len(tokens), len(tokens) + length - 1)][:length]
            tokens += sequences[index].completion_ids
            positions += range(len(prompt), len(prompt) + length)
    forwarded = [index for distinct in groups for index in distinct]
    members = tuple(copy for index in forwarded for copy in copies[index])
    return PackedBatch(
        input_ids=torch.tensor([tokens], dtype=torch.int64),
        position_ids=torch.tensor([positions], dtype=torch.int64),
        predict=torch.tensor(predict, dtype=torch.int64),
        targets=completion_tokens(sequences, forwarded),
        source=torch.tensor(source, dtype=torch.int64) if len(members) > len(forwarded) else None,
        members=members,
        lengths=tuple(len(sequences[i].completion_ids) for i in members),
        layout=_layout(sequences, groups),
        **completion_tensors(sequences, members),
    )


def _layout(sequences: Sequence[TrainingSequence], groups: Sequence[Sequence[int]]) -> PrefixLayout:
    blocks, most = len(groups), max(map(len, groups))
    prompt_lengths = [len(sequences[members[0]].prompt_ids) for members in groups]
    longest_prompt = max(prompt_lengths)
    longest = max(len(sequences[i].completion_ids) for members in groups for i in members)
    prompts = blocks * longest_prompt
    # Prompts and completions in the order of the row: (tokens, first place in the blocks).
    parts: list[tuple[int, int]] = []
    for b, members in enumerate(groups):
        parts.append((prompt_lengths[b], b * longest_prompt))
        for g, index in enumerate(members):
            parts.append((len(sequences[index].completion_ids), prompts + (b * most + g) * longest))
    lengths, places = torch.tensor(parts, dtype=torch.int64).T
    row = torch.arange(int(lengths.sum()))
    within = row - (lengths.cumsum(0) - lengths).repeat_interleave(lengths)
    restore = places.repeat_interleave(lengths) + within
    occupant = torch.full((prompts + blocks * most * longest,), -1)
    occupant[restore] = row
    tokens = occupant.clamp(min=0)
    return PrefixLayout(
        lengths=tuple(
            (prompt, *(len(sequences[i].completion_ids) for i in members))
            for prompt, members in zip(prompt_lengths, groups, strict=True)
        ),
        prompt=tokens[:prompts].view(blocks, longest_prompt),
        prompt_lengths=torch.tensor(prompt_lengths),
        completion=tokens[prompts:].view(blocks, most, longest),
        restore=restore,
        padding=(occupant < 0).nonzero().squeeze(1),
    )
