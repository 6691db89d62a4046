"""What all logits of a row have in common costs log-probabilities, entropies and gradients no digits."""

import pytest
import torch

from trainer.learner.logprobs import token_logprobs

T, V = 6, 40


def found(common: float, dtype: torch.dtype, temperature: float) -> list[torch.Tensor]:
    """Log-probabilities, entropies, and the gradient by the hidden states of a sum of both, in float64.

    A hidden state is one of T unit vectors beside a 1 for the common logit; logits are multiples of 2^-9, which float32
    holds exactly beside 1e4.
    """
    generator = torch.Generator().manual_seed(3)
    logits = torch.round(torch.randn(T, V, generator=generator) * 3 * 512) / 512
    weight = torch.cat([logits.T, torch.full((V, 1), common)], dim=1).to(dtype)
    hidden = torch.cat([torch.eye(T), torch.ones(T, 1)], dim=1).to(dtype).requires_grad_()
    targets = torch.randint(0, V, (T,), generator=generator)
    logp, entropy = token_logprobs(hidden, weight, targets, temperature=temperature, chunk=4)
    (gradient,) = torch.autograd.grad((logp + 0.5 * entropy).sum(), hidden)
    # By the common logit the gradient is 0 but for rounding, which its weight multiplies.
    return [logp.double(), entropy.double(), gradient[:, :T].double()]


@pytest.mark.parametrize("common", [0.0, 1e4, -1e4])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_float32_agrees_with_float64_whatever_the_logits_have_in_common(common, temperature):
    exact = found(0.0, torch.float64, temperature)
    for ours, theirs in zip(found(common, torch.float32, temperature), exact, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-6, atol=2e-6)


def test_the_entropy_is_the_softmaxs_own():
    logits = torch.tensor([[0.0, 1.0, 2.0]], dtype=torch.float64)
    _, entropy = token_logprobs(
        torch.ones(1, 1, dtype=torch.float64), logits.T + 1e4, torch.tensor([0]), temperature=1.0, chunk=1
    )
    p = torch.softmax(logits[0], 0)
    assert entropy.item() == pytest.approx(-(p * p.log()).sum().item(), rel=1e-9)
