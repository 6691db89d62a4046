"""Attention over shared-prefix rows with FlexAttention and a block mask: the GPU way.

Blocks of keys that no query of a block may see (other groups, other completions) are skipped, so the cost is that of
the visible pairs. The mask is equal to `prefix_attention`'s; the CPU runs it uncompiled, forward only, for the test
that says so.
"""

from typing import Any

import torch
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from transformers import AttentionInterface

from trainer.learner.packing.batch import PrefixLayout

NAME = "quorum_shared_prefix_flex"

_compiled = torch.compile(flex_attention, dynamic=True)


def block_mask(layout: PrefixLayout) -> BlockMask:
    """Same group, causal, and of the key either a prompt token or the query's own completion."""
    group, member = layout.group, layout.member
    count = len(group)

    def visible(batch: torch.Tensor, head: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        same = (member[key] == -1) | (member[key] == member[query])
        return (group[query] == group[key]) & (query >= key) & same

    return create_block_mask(visible, B=None, H=None, Q_LEN=count, KV_LEN=count, device=group.device)


def flex_prefix_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    *,
    prefix_mask: BlockMask,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention signature: `query` [1, Hq, N, D], `key` and `value` [1, Hkv, N, D] -> ([1, N, Hq, D],
    None)."""
    attend = _compiled if query.device.type == "cuda" else flex_attention
    # By query heads: all queries of a group see the prompt's keys, and one program a key head sums a block's gradient:
    # with the two key heads of a 3B model most of the device would be idle.
    shared = query.shape[1] // key.shape[1]
    key, value = (part.repeat_interleave(shared, dim=1) for part in (key, value))
    out = attend(query.to(value.dtype), key.to(value.dtype), value, block_mask=prefix_mask, scale=scaling)
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, flex_prefix_attention)
