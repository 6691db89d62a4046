"""Attention over shared-prefix rows on a GPU: two flash attentions over sequences of many lengths, merged by
log-sum-exp.

The first lets every prompt and every completion see itself, the second lets completions see their prompt. Why their
gradients need no pass through the merge: `merged.py`, the same idea on a CPU. bfloat16 and float16 only.
"""

from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from transformers import AttentionInterface

from trainer.learner.attention.served import refuse_unserved
from trainer.learner.compiled import compiled
from trainer.learner.packing.batch import PrefixLayout

NAME = "quorum_shared_prefix_gpu"

QUERIES = 2048
"""Completion tokens, at most, that see their prompt as one sequence. The backward pass runs one program for each 128
keys of a sequence and head, too few for a device where a group is one sequence."""

_FORWARD = torch.ops.aten._flash_attention_forward
_BACKWARD = torch.ops.aten._flash_attention_backward


@dataclass(frozen=True, kw_only=True, slots=True)
class Sequences:
    """Queries and keys of sequences, one after the other: what the kernels call variable lengths."""

    queries: torch.Tensor
    """[n + 1] int32, where each sequence's queries start, and the end of the last."""
    keys: torch.Tensor
    """[n + 1] int32."""
    most_queries: int
    most_keys: int
    causal: bool

    def attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`query` [Q, Hq, D], `key` and `value` [K, Hkv, D] -> output [Q, Hq, D], log-sum-exp [Hq, Q] float32."""
        out, lse, *_ = _FORWARD(query, key, value, *self._sizes, 0.0, self.causal, False, scale=scaling)
        return out, lse

    def gradients(
        self,
        upstream: torch.Tensor,
        inputs: tuple[torch.Tensor, ...],
        out: torch.Tensor,
        lse: torch.Tensor,
        scaling: float,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Of query, key and value (`inputs`); `out` and `lse` may be those of a softmax over further keys."""
        seed = torch.zeros(2, dtype=torch.uint64, device=out.device)
        unused = torch.empty(0, device=out.device)
        given = (upstream, *inputs, out, lse, *self._sizes, 0.0, self.causal, seed, unused)
        query, key, value = _BACKWARD(*given, scale=scaling)
        return query, key, value

    @property
    def _sizes(self) -> tuple[torch.Tensor, torch.Tensor, int, int]:
        return self.queries, self.keys, self.most_queries, self.most_keys


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A row as the two attentions see it."""

    layout: PrefixLayout
    own: Sequences
    """Every prompt and completion over itself."""
    shared: Sequences
    """Completions over their prompts."""
    completions: torch.Tensor | slice
    """Where the queries of `shared` are in the row: [C] int64, or a slice, which costs no copy, where one group is the
    row."""
    prompts: torch.Tensor
    """[K] int64, where its keys are: those of a prompt as often as it has sequences in `shared`."""


def row_of(layout: PrefixLayout, device: torch.device) -> Row:
    """What `flash_attention` needs to know of a row, made once for all layers."""
    lengths: list[int] = []
    queries: list[int] = []
    keys: list[int] = []
    completions: list[torch.Tensor] = []
    prompts: list[torch.Tensor] = []
    for prompt, *members in layout.lengths:
        start, tokens = sum(lengths), sum(members)
        pieces = -(-tokens // QUERIES)
        queries += [tokens * (i + 1) // pieces - tokens * i // pieces for i in range(pieces)]
        keys += [prompt] * pieces
        prompts += [torch.arange(start, start + prompt)] * pieces
        completions.append(torch.arange(start + prompt, start + prompt + tokens))
        lengths += [prompt, *members]
    alone = len(layout.lengths) == 1
    return Row(
        layout=layout,
        own=_sequences(lengths, lengths, causal=True, device=device),
        shared=_sequences(queries, keys, causal=False, device=device),
        completions=slice(lengths[0], None) if alone else torch.cat(completions).to(device, non_blocking=True),
        prompts=torch.cat(prompts).to(device, non_blocking=True),
    )


def _sequences(queries: list[int], keys: list[int], *, causal: bool, device: torch.device) -> Sequences:
    """Of these lengths, tokens."""
    starts = [torch.tensor([0, *accumulate(part)], dtype=torch.int32) for part in (queries, keys)]
    of_queries, of_keys = (part.to(device, non_blocking=True) for part in starts)
    return Sequences(queries=of_queries, keys=of_keys, most_queries=max(queries), most_keys=max(keys), causal=causal)


class _FlashAttention(torch.autograd.Function):
    """`query` [N, Hq, D], `key` and `value` [N, Hkv, D] -> [N, Hq, D]."""

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, row: Row, scaling: float
    ) -> torch.Tensor:
        out, lse = row.own.attend(query, key, value, scaling)
        places = row.completions
        shared = row.shared.attend(query[places], key[row.prompts], value[row.prompts], scaling)
        merge = compiled(_merge) if out.is_cuda else _merge
        out[places], lse[:, places] = merge(out[places], lse[:, places], *shared)
        ctx.save_for_backward(query, key, value, out, lse)
        ctx.row, ctx.scaling = row, scaling
        return out

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, out, lse = ctx.saved_tensors
        row: Row = ctx.row
        of_query, of_key, of_value = row.own.gradients(upstream, (query, key, value), out, lse, ctx.scaling)
        places, seen = row.completions, row.prompts
        inputs = (query[places], key[seen], value[seen])
        shared = row.shared.gradients(upstream[places], inputs, out[places], lse[:, places].contiguous(), ctx.scaling)
        of_query[places] += shared[0]
        sums = []
        for own, part in zip((of_key, of_value), shared[1:], strict=True):
            # A prompt has gradients from several sequences: their sum is rounded once.
            sums.append(own.float().index_add_(0, seen, part.float()).to(own.dtype))
        return of_query, *sums, None, None


def _merge(
    out_own: torch.Tensor, lse_own: torch.Tensor, out_shared: torch.Tensor, lse_shared: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """One softmax's output [C, H, D] and log-sum-exp [H, C] from those of its two parts."""
    lse = torch.logaddexp(lse_own, lse_shared)
    of_own, of_shared = ((part - lse).exp().T.unsqueeze(-1) for part in (lse_own, lse_shared))
    return (of_own * out_own + of_shared * out_shared).to(out_own.dtype), lse


def flash_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    *,
    prefix_row: Row | None = None,
    **keywords: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention signature: `query` [1, Hq, N, D], `key` and `value` [1, Hkv, N, D] -> ([1, N, Hq, D],
    None). Raises LearnerError for attention of another kind."""
    refuse_unserved(key, value, attention_mask, None if prefix_row is None else prefix_row.layout, keywords)
    assert prefix_row is not None
    rows = (part[0].transpose(0, 1).to(value.dtype) for part in (query, key, value))
    out: torch.Tensor = _FlashAttention.apply(*rows, prefix_row, scaling)
    return out.unsqueeze(0), None


AttentionInterface.register(NAME, flash_attention)
