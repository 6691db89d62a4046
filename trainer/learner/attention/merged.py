"""Completions' attention as two flash attentions, over the prompt and over the own completion, merged by log-sum-exp
(CPU).

With lse = log(exp(lse_p) + exp(lse_c)) the joint output is exp(lse_p - lse) out_p + exp(lse_c - lse) out_c. The
backward pass needs no gradient through the merge: a flash backward pass recomputes its weights as exp(score - lse),
so it returns each part's exact gradients when it is given the joint output and the joint lse (as in ring attention,
arXiv 2310.01889).
"""

from typing import Any

import torch

_FORWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def merged_attention(
    query: torch.Tensor,
    prompt: tuple[torch.Tensor, torch.Tensor],
    own: tuple[torch.Tensor, torch.Tensor],
    prompt_lengths: torch.Tensor,
    scaling: float,
) -> torch.Tensor:
    """Completions' attention over [prompt, own completion]; no [queries, prompt] matrix is kept.

    `query` [B, Hq, G, C, D], `prompt` keys and values [B, Hkv, P, D], `own` keys and values [B, Hkv, G, C, D] ->
    [B, Hq, G, C, D].
    """
    blocks, heads, most, longest, width = query.shape
    repeats = heads // prompt[0].shape[1]
    key_p, value_p = (_repeat(t, repeats) for t in prompt)
    key_c, value_c = (_by_completion(_repeat(t, repeats)) for t in own)
    lengths = prompt_lengths.tolist()
    outside = None
    if min(lengths) != max(lengths):
        padding = torch.arange(key_p.shape[2]) >= prompt_lengths[:, None]
        outside = torch.zeros(padding.shape, dtype=query.dtype).masked_fill(padding, -torch.inf)
        outside = outside[:, None, None, :].expand(blocks, heads, most * longest, -1)
    out = _Merged.apply(query, key_p, value_p, key_c, value_c, outside, scaling)
    return out.reshape(blocks, heads, most, longest, width)


class _Merged(torch.autograd.Function):
    """`query` [B, H, G, C, D]; prompt keys and values [B, H, P, D]; own ones [B*G, H, C, D]; result [B, H, G*C, D]."""

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key_p: torch.Tensor,
        value_p: torch.Tensor,
        key_c: torch.Tensor,
        value_c: torch.Tensor,
        outside: torch.Tensor | None,
        scaling: float,
    ) -> torch.Tensor:
        shape = query.shape
        query_c = _by_completion(query)
        query_p = query.flatten(2, 3)
        out_p, lse_p = _FORWARD(query_p, key_p, value_p, 0.0, False, attn_mask=outside, scale=scaling)
        out_c, lse_c = _FORWARD(query_c, key_c, value_c, 0.0, True, scale=scaling)
        lse_c = _by_block(lse_c, shape)
        lse = torch.logaddexp(lse_p, lse_c)
        out = (lse_p - lse).exp().unsqueeze(-1) * out_p + (lse_c - lse).exp().unsqueeze(-1) * _by_block(out_c, shape)
        out = out.to(query.dtype)
        ctx.save_for_backward(query, key_p, value_p, key_c, value_c, outside, out, lse)
        ctx.scaling = scaling
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key_p, value_p, key_c, value_c, outside, out, lse = ctx.saved_tensors
        shape = query.shape
        grad_p, dkey_p, dvalue_p = _BACKWARD(
            grad, query.flatten(2, 3), key_p, value_p, out, lse, 0.0, False, attn_mask=outside, scale=ctx.scaling
        )
        per_completion = (_by_completion(t.unflatten(2, shape[2:4])) for t in (grad, out, lse))
        grad_own, out_own, lse_own = per_completion
        grad_c, dkey_c, dvalue_c = _BACKWARD(
            grad_own, _by_completion(query), key_c, value_c, out_own, lse_own, 0.0, True, scale=ctx.scaling
        )
        grad_query = grad_p.unflatten(2, shape[2:4]) + _by_block(grad_c, shape).unflatten(2, shape[2:4])
        return grad_query, dkey_p, dvalue_p, dkey_c, dvalue_c, None, None


def _repeat(tensor: torch.Tensor, repeats: int) -> torch.Tensor:
    """[B, Hkv, ...] -> [B, Hkv * repeats, ...]: flash attention's backward pass wants as many key heads as query
    heads."""
    return tensor if repeats == 1 else tensor.repeat_interleave(repeats, dim=1)


def _by_completion(tensor: torch.Tensor) -> torch.Tensor:
    """[B, H, G, C, ...] -> [B*G, H, C, ...]."""
    return tensor.transpose(1, 2).flatten(0, 1)


def _by_block(tensor: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """[B*G, H, C, ...] -> [B, H, G*C, ...]."""
    return tensor.unflatten(0, (shape[0], shape[2])).transpose(1, 2).flatten(2, 3)
