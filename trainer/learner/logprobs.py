"""Log-probabilities and entropies from hidden states, a chunk of tokens at a time, with exact gradients.

Guarantees: vocabulary logits exist for `chunk` tokens at a time, forward and backward (where they are computed
again). The softmax is taken in float32; the products in the dtype of autocast, or of the hidden states without it.
Logits are taken less the largest of their row before anything is summed: what they have in common costs no digits.
"""

from collections.abc import Iterator
from typing import Any

import torch

from trainer.learner.compiled import compiled
from trainer.learner.logits import PRODUCTS, Logits


def token_logprobs(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    *,
    temperature: float,
    chunk: int,
    made: Logits = PRODUCTS,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability of each target and entropy of each distribution, nats: ([T], [T]) float32.

    `hidden` [T, H], `weight` [V, H] of an output layer without bias, `targets` [T] int64; logits are what `made` makes
    of the products, divided by `temperature`.
    """
    bend: _Bend = temperature / made.factor, None
    if made.cap is not None:
        bend = made.cap / made.factor, made.cap / temperature
    autocast = torch.is_autocast_enabled(hidden.device.type)
    dtype = torch.get_autocast_dtype(hidden.device.type) if autocast else hidden.dtype
    with torch.autocast(hidden.device.type, enabled=False):
        logp, entropy = _ChunkedLogprobs.apply(hidden.to(dtype), weight, targets, bend, chunk)
    return logp, entropy


_Bend = tuple[float, float | None]
"""(divisor, cap): logits are products / divisor, or cap tanh(products / divisor). Plain numbers: kernels are compiled
for them."""


class _ChunkedLogprobs(torch.autograd.Function):
    """d logp_y / d logits = onehot(y) - p;  d H / d logits = -p (log p + H)."""

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, bend: _Bend, chunk: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        accumulate = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        logp = torch.empty(len(targets), dtype=accumulate, device=hidden.device)
        entropy, highest, log_total = (torch.empty_like(logp) for _ in range(3))
        cast = weight.to(hidden.dtype)
        # On a GPU eager operations would walk through the logits one by one.
        statistics = compiled(_statistics) if hidden.is_cuda else _statistics
        for part in _chunks(len(targets), chunk):
            products = hidden[part] @ cast.T
            logp[part], entropy[part], highest[part], log_total[part] = statistics(
                products, targets[part], bend, accumulate
            )
        ctx.save_for_backward(hidden, weight, targets, entropy, highest, log_total)
        ctx.bend, ctx.chunk = bend, chunk
        ctx.set_materialize_grads(False)
        return logp, entropy

    @staticmethod
    def backward(
        ctx: Any, grad_logp: torch.Tensor | None, grad_entropy: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, ...]:
        hidden, weight, targets, entropy, highest, log_total = ctx.saved_tensors
        cast = weight.to(hidden.dtype)
        grad_hidden = torch.zeros_like(hidden)
        trained = ctx.needs_input_grad[1]
        grad_weight = torch.zeros(weight.shape if trained else 0, dtype=log_total.dtype, device=weight.device)
        divisor, cap = ctx.bend
        slope = (1.0 if cap is None else cap) / divisor
        upstream = torch.zeros_like(log_total) if grad_logp is None else grad_logp * slope
        of_entropy = None if grad_entropy is None else grad_entropy * slope
        gradient = compiled(_gradient) if hidden.is_cuda else _gradient
        for part in _chunks(len(targets), ctx.chunk):
            products = hidden[part] @ cast.T
            of_part = None if of_entropy is None else (of_entropy[part], entropy[part])
            normaliser = (highest[part], log_total[part])
            grad = gradient(products, normaliser, targets[part], upstream[part], of_part, ctx.bend)
            grad_hidden[part] = grad @ cast
            if trained:
                grad_weight += grad.T @ hidden[part]
        return grad_hidden, grad_weight.to(weight.dtype) if trained else None, None, None, None


def _chunks(count: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def _logits(products: torch.Tensor, bend: _Bend, dtype: torch.dtype) -> torch.Tensor:
    divisor, cap = bend
    logits = products.to(dtype)
    if divisor != 1.0:
        logits = logits.div_(divisor)
    return logits if cap is None else logits.tanh_().mul_(cap)


def _statistics(
    products: torch.Tensor, targets: torch.Tensor, bend: _Bend, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-probability of the target, entropy, largest logit m and log(sum(exp(logits - m))) of each row of `products`
    [t, V], which it may overwrite."""
    logits = _logits(products, bend, dtype)
    chosen = logits.gather(1, targets[:, None]).squeeze(1)
    highest = logits.amax(dim=-1)
    shifted = logits.sub_(highest[:, None])
    # One exponential e serves the normaliser and the entropy, log(sum(e)) - sum(e shifted) / sum(e).
    exponential = shifted.exp()
    total = exponential.sum(dim=-1)
    log_total = total.log()
    entropy = log_total - exponential.mul_(shifted).sum(dim=-1).div_(total)
    return (chosen - highest).sub_(log_total), entropy, highest, log_total


def _gradient(
    products: torch.Tensor,
    normaliser: tuple[torch.Tensor, torch.Tensor],
    targets: torch.Tensor,
    upstream: torch.Tensor,
    of_entropy: tuple[torch.Tensor, torch.Tensor] | None,
    bend: _Bend,
) -> torch.Tensor:
    """d loss / d products [t, V], which it may overwrite; `normaliser`: the last two of `_statistics`; `upstream` and
    `of_entropy`, the entropies' gradients and values, are multiplied by the slope already."""
    highest, log_total = normaliser
    logits = _logits(products, bend, highest.dtype)
    cap = bend[1]
    # d tanh = 1 - tanh^2; the logits are overwritten below.
    steepness = None if cap is None else 1.0 - (logits / cap).square_()
    shifted = logits.sub_(highest[:, None])
    factor = -upstream[:, None]
    if of_entropy is not None:
        gradient, entropy = of_entropy
        factor = factor - (shifted + (entropy - log_total)[:, None]) * gradient[:, None]
    grad = shifted.exp_().mul_(factor.mul_(torch.exp(-log_total)[:, None]))
    if products.is_cuda:  # scattered, it would be written and read once more
        classes = torch.arange(grad.shape[1], device=grad.device)
        grad = torch.where(classes == targets[:, None], grad + upstream[:, None], grad)
    else:
        grad.scatter_add_(1, targets[:, None], upstream[:, None])
    if steepness is not None:
        grad = grad * steepness
    return grad.to(products.dtype)
