"""Shared-prefix attention by a GPU's flash kernels: values and gradients of one masked softmax."""

import pytest
import torch
from torch.nn import functional

from tests.shared_row import shared_row
from trainer.learner.attention import flash

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

ROWS = [[(700, [130, 257, 64, 1])], [(150, [60, 20, 5]), (333, [100]), (64, [50, 51, 33, 90, 7])]]


@pytest.mark.parametrize("queries", [100, 2048])
@pytest.mark.parametrize("lengths", ROWS, ids=["one group", "three groups"])
def test_values_and_gradients_are_those_of_one_softmax(monkeypatch, lengths, queries: int) -> None:
    monkeypatch.setattr(flash, "QUERIES", queries)
    batch, visible = shared_row(lengths)
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(1, heads, len(visible), 128, generator=generator) for heads in (16, 2, 2)]
    upstream = torch.randn(1, len(visible), 16, 128, generator=generator)
    exact = [part.bfloat16().double().requires_grad_() for part in inputs]
    expected = functional.scaled_dot_product_attention(*exact, attn_mask=visible, enable_gqa=True).transpose(1, 2)
    on_device = [part.bfloat16().cuda().requires_grad_() for part in inputs]
    row = flash.row_of(batch.layout, torch.device("cuda"))
    found, _ = flash.flash_attention(torch.nn.Identity(), *on_device, None, 128**-0.5, prefix_row=row)
    wanted = (expected, *torch.autograd.grad(expected, exact, upstream.bfloat16().double()))
    seen = (found, *torch.autograd.grad(found, on_device, upstream.bfloat16().cuda()))
    for name, one, other in zip(("output", "query", "key", "value"), seen, wanted, strict=True):
        assert (one.cpu().double() - other).norm() < 1e-2 * other.norm(), name
