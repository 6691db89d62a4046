"""The GPU's attention with dense float64 kernels in place of the device's: which tokens see which, and the merge."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch.nn import functional

from tests.shared_row import Lengths, shared_row
from tests.tiny_qwen2 import tiny_qwen2
from trainer.learner.attention import flash
from trainer.learner.policy import Policy


def pieces(queries: torch.Tensor, keys: torch.Tensor) -> list[tuple[slice, slice]]:
    starts = (pairwise(part.tolist()) for part in (queries, keys))
    return [(slice(*q), slice(*k)) for q, k in zip(*starts, strict=True)]


def scores(query: torch.Tensor, key: torch.Tensor, scale: float, causal: bool) -> torch.Tensor:
    """[heads, queries, keys] of one sequence."""
    repeated = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    found = torch.einsum("qhd,khd->hqk", query, repeated) * scale
    hidden = torch.ones(found.shape[1:], dtype=torch.bool).triu(1) if causal else torch.zeros(1, 1, dtype=torch.bool)
    return found.masked_fill(hidden, -torch.inf)


def dense_forward(query, key, value, queries, keys, most_q, most_k, dropout, causal, debug, *, scale) -> Any:
    out, lse = torch.empty_like(query), torch.empty(query.shape[1], len(query), dtype=query.dtype)
    for q, k in pieces(queries, keys):
        assert q.stop - q.start <= most_q
        assert k.stop - k.start <= most_k
        found = scores(query[q], key[k], scale, causal)
        values = value[k].repeat_interleave(query.shape[1] // key.shape[1], dim=1)
        out[q] = torch.einsum("hqk,khd->qhd", found.softmax(-1), values)
        lse[:, q] = found.logsumexp(-1)
    return out, lse, None, None, None


def dense_backward(
    upstream, query, key, value, out, lse, queries, keys, most_q, most_k, dropout, causal, seed, unused, *, scale
) -> Any:
    repeats = query.shape[1] // key.shape[1]
    of_query, of_key, of_value = (torch.zeros_like(part) for part in (query, key, value))
    along = (upstream * out).sum(-1).T
    for q, k in pieces(queries, keys):
        weights = (scores(query[q], key[k], scale, causal) - lse[:, q, None]).exp()
        repeated_k, repeated_v = (part[k].repeat_interleave(repeats, dim=1) for part in (key, value))
        of_weights = torch.einsum("qhd,khd->hqk", upstream[q], repeated_v)
        of_scores = weights * (of_weights - along[:, q, None]) * scale
        of_query[q] = torch.einsum("hqk,khd->qhd", of_scores, repeated_k)
        for target, left, right in ((of_key, of_scores, query[q]), (of_value, weights, upstream[q])):
            gradient = torch.einsum("hqk,qhd->khd", left, right)
            target[k] = gradient.unflatten(1, (key.shape[1], repeats)).sum(2)
    return of_query, of_key, of_value


def test_a_policy_on_flash_attention_has_the_log_probabilities_of_full_attention(monkeypatch) -> None:
    monkeypatch.setattr(flash, "_FORWARD", dense_forward)
    batch, visible = shared_row([(4, [6, 2]), (9, [1]), (2, [5, 5, 3])])
    model = tiny_qwen2()
    model.set_attn_implementation(flash.NAME)
    with torch.no_grad():
        found, _ = Policy(model, temperature=1.0, chunk=8)(batch)
        model.set_attn_implementation("sdpa")
        mask = torch.zeros(visible.shape).masked_fill(~visible, -torch.inf)[None, None]
        logits = model(input_ids=batch.input_ids, position_ids=batch.position_ids, attention_mask=mask).logits[0]
    expected = logits[batch.predict].log_softmax(-1).gather(1, batch.targets[:, None])[:, 0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("queries", [5, 2048])
@pytest.mark.parametrize("lengths", [[(7, [3, 5, 4])], [(4, [6, 2]), (9, [1]), (2, [5, 5, 3])]])
def test_values_and_gradients_are_those_of_one_softmax(monkeypatch, lengths: Lengths, queries: int) -> None:
    monkeypatch.setattr(flash, "_FORWARD", dense_forward)
    monkeypatch.setattr(flash, "_BACKWARD", dense_backward)
    monkeypatch.setattr(flash, "QUERIES", queries)
    batch, visible = shared_row(lengths)
    assert batch.layout is not None
    generator = torch.Generator().manual_seed(0)
    inputs = [
        torch.randn(1, heads, len(visible), 8, generator=generator, dtype=torch.float64, requires_grad=True)
        for heads in (4, 2, 2)
    ]
    upstream = torch.randn(1, len(visible), 4, 8, generator=generator, dtype=torch.float64)
    expected = functional.scaled_dot_product_attention(*inputs, attn_mask=visible, scale=0.3, enable_gqa=True)
    found, _ = flash.flash_attention(
        torch.nn.Identity(), *inputs, None, 0.3, prefix_row=flash.row_of(batch.layout, torch.device("cpu"))
    )
    torch.testing.assert_close(found, expected.transpose(1, 2))
    gradients = (torch.autograd.grad(out, inputs, upstream) for out in (found, expected.transpose(1, 2)))
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)
