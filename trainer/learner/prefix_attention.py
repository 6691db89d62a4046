"""Attention over shared-prefix rows on any device: each prompt's keys and values are used in place by all of its
completions.

A completion token sees its prompt and its own completion up to itself; a prompt token sees its prompt up to itself.
Two exact ways, chosen by prompt length: explicit products under one joint softmax (short prompts), or two flash
attentions merged by log-sum-exp (long ones, CPU only). Registered with transformers under `NAME`; the row's
`PrefixLayout` arrives as the keyword argument `prefix_layout` of the model's forward.
"""

from typing import Any

import torch
from torch.nn import functional
from transformers import AttentionInterface

from trainer.learner.merged_attention import merged_attention
from trainer.learner.packed import PrefixLayout

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
    prefix_layout: PrefixLayout,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention signature: `query` [1, Hq, N, D], `key` and `value` [1, Hkv, N, D] -> ([1, N, Hq, D],
    None)."""
    layout = prefix_layout
    blocks, longest_prompt = layout.prompt.shape
    _, most, longest = layout.completion.shape
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
    merge = longest_prompt >= MERGE_FROM and query.device.type == "cpu"
    attend = merged_attention if merge else joint_attention
    out_c = attend(query_c, (key_p, value_p), (key_c, value_c), layout.prompt_lengths, scaling)
    rows = torch.cat(
        [
            out_p.transpose(1, 2).reshape(prompts, query.shape[1], -1),
            out_c.permute(0, 2, 3, 1, 4).reshape(size - prompts, query.shape[1], -1),
        ]
    )
    return _ToRow.apply(rows, layout).unsqueeze(0), None


def joint_attention(
    query: torch.Tensor,
    prompt: tuple[torch.Tensor, torch.Tensor],
    own: tuple[torch.Tensor, torch.Tensor],
    prompt_lengths: torch.Tensor,
    scaling: float,
) -> torch.Tensor:
    """Completions' attention with one softmax over [prompt, own completion].

    `query` [B, Hq, G, C, D], `prompt` keys and values [B, Hkv, P, D], `own` keys and values [B, Hkv, G, C, D] ->
    [B, Hq, G, C, D].
    """
    blocks, heads, most, longest, width = query.shape
    key_p, value_p = prompt
    key_c, value_c = own
    kv_heads, prompt_length = key_p.shape[1], key_p.shape[2]
    repeats = heads // kv_heads
    query = query.reshape(blocks, kv_heads, repeats * most * longest, width) * scaling
    outside = torch.arange(prompt_length, device=query.device) >= prompt_lengths[:, None]
    future = torch.ones(longest, longest, dtype=torch.bool, device=query.device).triu(1)
    scores_p = (query @ key_p.transpose(-1, -2)).masked_fill(outside[:, None, None, :], -torch.inf)
    per_completion = query.reshape(blocks, kv_heads, repeats, most, longest, width)
    scores_c = (per_completion @ key_c.transpose(-1, -2).unsqueeze(2)).masked_fill(future, -torch.inf)
    scores = torch.cat([scores_p, scores_c.reshape(*scores_p.shape[:3], longest)], dim=-1)
    weights = torch.softmax(scores, dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(value_p.dtype)
    from_prompt, from_own = weights.split([prompt_length, longest], dim=-1)
    out = from_prompt @ value_p
    own_weights = from_own.reshape(blocks, kv_heads, repeats, most, longest, longest)
    out = out.reshape(per_completion.shape) + own_weights @ value_c.unsqueeze(2)
    return out.reshape(blocks, heads, most, longest, width)


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
