"""Attention over shared-prefix rows on the CPU: each prompt's keys and values are used in place by all of its
completions.

A completion token sees its prompt and its own completion up to itself; a prompt token sees its prompt up to itself.
Two exact ways, chosen by prompt length: explicit products under one joint softmax (short prompts), or two flash
attentions merged by log-sum-exp (long ones). Registered with transformers under `NAME`; the row's
`PrefixLayout` arrives as the keyword argument `prefix_layout` of the model's forward.
"""

from typing import Any

import torch
from torch.nn import functional
from transformers import AttentionInterface

from trainer.learner.attention.joint import joint_attention
from trainer.learner.attention.merged import merged_attention
from trainer.learner.attention.served import refuse_unserved
from trainer.learner.packing.batch import PrefixLayout

NAME = "quorum_shared_prefix"

MERGE_FROM = 256
"""Longest prompt of a row, in tokens, from which merging by log-sum-exp is the faster way on the CPU."""


def prefix_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    *,
    prefix_layout: PrefixLayout | None = None,
    **keywords: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention signature: `query` [1, Hq, N, D], `key` and `value` [1, Hkv, N, D] -> ([1, N, Hq, D],
    None). Raises LearnerError for attention of another kind."""
    refuse_unserved(key, value, attention_mask, prefix_layout, keywords)
    assert prefix_layout is not None
    layout = prefix_layout
    blocks, longest_prompt = layout.prompt.shape
    _, most, longest = layout.completion.shape
    if longest_prompt < MERGE_FROM:
        q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
        return joint_attention(q, k, v, layout, scaling).unsqueeze(0), None
    size = layout.prompt.numel() + layout.completion.numel()
    prompts = blocks * longest_prompt
    halves = []
    for tensor in (query, key, value):
        rows = _ToBlocks.apply(tensor[0].transpose(0, 1).to(value.dtype), layout)
        prompt, completion = rows.split([prompts, size - prompts])
        heads = tensor.shape[1]
        halves.append(
            (
                prompt.view(blocks, longest_prompt, heads, -1).transpose(1, 2),
                completion.view(blocks, most, longest, heads, -1).permute(0, 3, 1, 2, 4),
            )
        )
    (query_p, query_c), (key_p, key_c), (value_p, value_c) = halves
    grouped = query.shape[1] != key.shape[1]
    out_p = functional.scaled_dot_product_attention(
        query_p, key_p, value_p, is_causal=True, scale=scaling, enable_gqa=grouped
    )
    out_c = merged_attention(query_c, (key_p, value_p), (key_c, value_c), layout.prompt_lengths, scaling)
    rows = torch.cat(
        [
            out_p.transpose(1, 2).reshape(prompts, query.shape[1], -1),
            out_c.permute(0, 2, 3, 1, 4).reshape(size - prompts, query.shape[1], -1),
        ]
    )
    return _ToRow.apply(rows, layout).unsqueeze(0), None


def _to_blocks(row: torch.Tensor, layout: PrefixLayout) -> torch.Tensor:
    index = torch.cat([layout.prompt.flatten(), layout.completion.flatten()])
    return row.index_select(0, index).index_fill_(0, layout.padding, 0.0)


class _ToBlocks(torch.autograd.Function):
    """[N, ...] -> [B*P + B*G*C, ...] with zeros for padding. A token has one place, so both directions are plain
    copies."""

    @staticmethod
    def forward(ctx: Any, row: torch.Tensor, layout: PrefixLayout) -> torch.Tensor:
        ctx.layout = layout
        return _to_blocks(row, layout)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        return grad.index_select(0, ctx.layout.restore), None


class _ToRow(torch.autograd.Function):
    """The inverse of `_ToBlocks`: padding is left behind and gets a gradient of zero."""

    @staticmethod
    def forward(ctx: Any, blocks: torch.Tensor, layout: PrefixLayout) -> torch.Tensor:
        ctx.layout = layout
        return blocks.index_select(0, layout.restore)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        return _to_blocks(grad, ctx.layout), None


AttentionInterface.register(NAME, prefix_attention)
