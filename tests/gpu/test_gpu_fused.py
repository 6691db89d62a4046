"""A Qwen2 whose operations are single kernels on a GPU: transformers' values and gradients."""

import pytest
import torch

from tests.tiny_qwen2 import tiny_qwen2
from trainer.learner.fused.gpu import fuse

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def values_and_gradients(*, fused: bool, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    shape = {"vocab_size": 500, "hidden_size": 256, "intermediate_size": 512, "initializer_range": 0.02}
    model = tiny_qwen2(**shape).cuda()
    if fused:
        fuse(model)
    logits = model(tokens, use_cache=False).logits
    logits.square().mean().backward()
    return {"logits": logits.detach()} | {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("length", [33, 128])
def test_fused_operations_have_transformers_values_and_gradients(length: int) -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    tokens = torch.randint(500, (3, length), generator=torch.Generator().manual_seed(1)).cuda()
    expected = values_and_gradients(fused=False, tokens=tokens)
    found = values_and_gradients(fused=True, tokens=tokens)
    for name, values in expected.items():
        if not name.endswith("k_proj.bias"):  # zero but for rounding
            assert (found[name] - values).norm() < 1e-4 * values.norm(), name
