"""Log-probabilities, entropies and their gradients by compiled kernels: float64 on the CPU."""

import pytest
import torch

from trainer.learner.logprobs import token_logprobs

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def values_and_gradients(hidden: torch.Tensor, weight: torch.Tensor, temperature: float) -> list[torch.Tensor]:
    hidden, weight = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
    targets = torch.arange(len(hidden), device=hidden.device) * 7
    logp, entropy = token_logprobs(hidden, weight, targets, temperature=temperature, chunk=64)
    steps = torch.arange(len(hidden), device=hidden.device, dtype=logp.dtype)
    loss = (logp * steps.sin()).sum() + (entropy * steps.cos()).sum()
    return [logp.detach(), entropy.detach(), *torch.autograd.grad(loss, (hidden, weight))]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_kernels_have_the_exact_values_and_gradients(dtype: torch.dtype, temperature: float) -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    generator = torch.Generator().manual_seed(0)
    # 150 tokens: two chunks and a part of one.
    inputs = [torch.randn(rows, 96, generator=generator).to(dtype) for rows in (150, 2000)]
    inputs[1] *= 0.2
    expected = values_and_gradients(*(part.double() for part in inputs), temperature)
    found = values_and_gradients(*(part.cuda() for part in inputs), temperature)
    bound = 1e-5 if dtype == torch.float32 else 1e-2
    for name, one, other in zip(("logp", "entropy", "hidden", "weight"), found, expected, strict=True):
        assert (one.cpu().double() - other).norm() < bound * other.norm(), name
