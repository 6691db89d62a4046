"""Attention over shared-prefix rows as explicit products under one softmax: the CPU way for short prompts.

Guarantees: exact gradients. One autograd function gathers queries, keys and values by head, so that every product is
one batch of dense matrices and every gradient is written where it belongs. The softmax over [prompt, own completion]
spans two matrices, which are never joined. Memory: the weights of every query over the longest prompt and the longest
completion are kept for the backward pass; `merged_attention` keeps none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from trainer.learner.packing.batch import PrefixLayout


def joint_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, layout: PrefixLayout, scaling: float
) -> torch.Tensor:
    """`query` [N, Hq, D], `key` and `value` [N, Hkv, D] of one row -> [N, Hq, D]; computed in float32 at least."""
    dtype = torch.promote_types(value.dtype, torch.float32)
    with torch.autocast("cpu", enabled=False):
        out: torch.Tensor = _JointAttention.apply(query.to(dtype), key.to(dtype), value.to(dtype), layout, scaling)
    return out.to(value.dtype)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Gathering:
    """Between a row [N, heads, D] and blocks [.., D] by head: which of the N * heads vectors stands where.

    Blocks are [Hkv, B, R, P, D] for prompts, then [Hkv, B, G, R, C, D] for completions, one after the other; R: heads
    of the row for each of Hkv.
    """

    index: torch.Tensor
    """[prompt places + completion places]; a place of padding repeats some vector."""
    restore: torch.Tensor
    """[N * heads]: the place of each vector."""
    padding: torch.Tensor
    """Places of padding."""
    prompts: int
    """Places of prompts."""

    def blocks(self, row: torch.Tensor) -> torch.Tensor:
        return row.reshape(-1, row.shape[-1]).index_select(0, self.index)

    def row(self, blocks: torch.Tensor, like: torch.Size) -> torch.Tensor:
        return blocks.index_select(0, self.restore).view(like)


def _gathering(layout: PrefixLayout, heads: int, groups: int) -> _Gathering:
    """For a row of `heads` heads, `groups` of which have keys of their own."""
    repeats = heads // groups
    head = torch.arange(heads).view(groups, 1, repeats, 1)
    prompt = layout.prompt[None, :, None, :] * heads + head
    completion = layout.completion[None, :, :, None, :] * heads + head.unsqueeze(2)
    index = torch.cat([prompt.flatten(), completion.flatten()])
    places = torch.arange(len(index))
    occupied = torch.zeros(layout.prompt.numel() + layout.completion.numel(), dtype=torch.bool)
    occupied[layout.restore] = True
    blocks, longest = layout.prompt.shape
    held_p = occupied[: blocks * longest].view(1, blocks, 1, longest).expand(prompt.shape)
    held_c = occupied[blocks * longest :].view(1, *layout.completion.shape[:2], 1, -1).expand(completion.shape)
    held = torch.cat([held_p.flatten(), held_c.flatten()])
    restore = torch.empty(len(layout.restore) * heads, dtype=torch.int64)
    restore[index[held]] = places[held]
    return _Gathering(index=index, restore=restore, padding=places[~held], prompts=prompt.numel())


class _JointAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        layout: PrefixLayout,
        scaling: float,
    ) -> torch.Tensor:
        groups = key.shape[1]
        of_query, of_key = _gathering(layout, query.shape[1], groups), _gathering(layout, groups, groups)
        shape = _Shape(layout, groups)
        queries = shape.split(of_query.blocks(query).mul_(scaling), of_query)
        keys, values = (shape.split(of_key.blocks(row), of_key) for row in (key, value))
        weights = shape.weights(queries, keys)
        out = torch.empty(len(of_query.index), query.shape[-1], dtype=query.dtype)
        shape.apply(weights, values, shape.split(out, of_query))
        ctx.save_for_backward(*queries, *keys, *values, *weights, out)
        ctx.gatherings, ctx.shape, ctx.scaling = (of_query, of_key), shape, scaling
        ctx.sizes = query.shape, key.shape
        return of_query.row(out, query.shape)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        *saved, out = ctx.saved_tensors
        queries, keys, values, weights = saved[:2], saved[2:4], saved[4:6], saved[6:]
        (of_query, of_key), shape = ctx.gatherings, ctx.shape
        upstream = of_query.blocks(grad).index_fill_(0, of_query.padding, 0.0)
        along = (upstream * out).sum(-1, keepdim=True)
        d_query, d_out = torch.empty_like(out), shape.split(upstream, of_query)
        d_key, d_value = (torch.empty(len(of_key.index), out.shape[-1], dtype=out.dtype) for _ in range(2))
        d_scores = shape.score_gradients(weights, values, d_out, shape.split(along, of_query))
        shape.apply(d_scores, keys, shape.split(d_query, of_query))
        shape.collect(d_scores, queries, shape.split(d_key, of_key))
        shape.collect(weights, d_out, shape.split(d_value, of_key))
        query_size, key_size = ctx.sizes
        rows = of_query.row(d_query.mul_(ctx.scaling), query_size), of_key.row(d_key, key_size)
        return *rows, of_key.row(d_value, key_size), None, None


Pair = Sequence[torch.Tensor]
"""(of prompts, of completions): matrices [Hkv*B, R*P, w] and [Hkv*B, G*R*C, w] of queries, [Hkv*B, P, w] and
[Hkv*B, G*C, w] of keys and values."""

Weights = Sequence[torch.Tensor]
"""Of prompts over themselves [Hkv*B, R*P, P], of completions over prompts [Hkv*B, G*R*C, P], of completions over
themselves [Hkv*B*G, R*C, C]."""


class _Shape:
    """The products of one layout as batches of matrices."""

    def __init__(self, layout: PrefixLayout, groups: int) -> None:
        self._blocks, self._prompt = layout.prompt.shape
        _, self._most, self._longest = layout.completion.shape
        self._batch, self._groups, self._lengths = groups * self._blocks, groups, layout.prompt_lengths

    def split(self, blocks: torch.Tensor, gathering: _Gathering) -> Pair:
        prompt, completion = blocks[: gathering.prompts], blocks[gathering.prompts :]
        return prompt.view(self._batch, -1, blocks.shape[-1]), completion.view(self._batch, -1, blocks.shape[-1])

    def _each(self, completion: torch.Tensor) -> torch.Tensor:
        """[Hkv*B, G*n, w] -> [Hkv*B*G, n, w]."""
        return completion.view(self._batch * self._most, -1, completion.shape[-1])

    def weights(self, queries: Pair, keys: Pair) -> Weights:
        """softmax(queries keys^T) over what each query may see."""
        query_p, query_c = queries
        key_p, key_c = keys
        prompt = query_p @ key_p.transpose(1, 2)
        prompt.view(self._batch, -1, self._prompt, self._prompt).masked_fill_(_future(self._prompt), -torch.inf)
        shared = query_c @ key_p.transpose(1, 2)
        if int(self._lengths.min()) < self._prompt:
            outside = torch.arange(self._prompt) >= self._lengths[:, None]
            shared.view(self._groups, self._blocks, -1, self._prompt).masked_fill_(outside[:, None, :], -torch.inf)
        own = self._each(query_c) @ self._each(key_c).transpose(1, 2)
        own.view(len(own), -1, self._longest, self._longest).masked_fill_(_future(self._longest), -torch.inf)
        parts = [part.view(-1, part.shape[-1]) for part in (shared, own)]
        highest = torch.maximum(*(part.amax(-1, keepdim=True) for part in parts))
        for part in parts:
            part.sub_(highest).exp_()
        share = sum(part.sum(-1, keepdim=True) for part in parts).reciprocal_()
        for part in parts:
            part.mul_(share)
        return torch.softmax(prompt, dim=-1), shared, own

    def apply(self, weights: Weights, values: Pair, out: Pair) -> None:
        """out = weights values."""
        torch.bmm(weights[0], values[0], out=out[0])
        torch.bmm(weights[1], values[0], out=out[1])
        self._each(out[1]).baddbmm_(weights[2], self._each(values[1]))

    def collect(self, weights: Weights, queries: Pair, out: Pair) -> None:
        """out = weights^T queries."""
        torch.bmm(weights[0].transpose(1, 2), queries[0], out=out[0])
        out[0].baddbmm_(weights[1].transpose(1, 2), queries[1])
        torch.bmm(weights[2].transpose(1, 2), self._each(queries[1]), out=self._each(out[1]))

    def score_gradients(self, weights: Weights, values: Pair, d_out: Pair, along: Pair) -> Weights:
        """weights (d_out values^T - along); `along` [.., 1]: sum of d_out times out."""
        value_p, value_c = values[0].transpose(1, 2), self._each(values[1]).transpose(1, 2)
        products = d_out[0] @ value_p, d_out[1] @ value_p, self._each(d_out[1]) @ value_c
        sums = along[0], along[1], self._each(along[1])
        return [p.sub_(s).mul_(w) for p, s, w in zip(products, sums, weights, strict=True)]


def _future(length: int) -> torch.Tensor:
    return torch.ones(length, length, dtype=torch.bool).triu(1)
