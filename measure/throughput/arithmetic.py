"""The arithmetic that one optimizer step cannot do without, in floating-point operations. Pure counting.

A multiplication and an addition are two operations. Counted are matrix products: linear layers, attention scores and
values, output logits; norms, activations and the optimizer are left out (well below a hundredth). Needed tokens only:
a prompt once for its group, equal completions of a group trained on once, no padding, logits only where a token is
sampled or trained. A backward pass costs twice its forward pass (Kaplan et al. 2020, section 2.1).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rollout.shape import ModelShape


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupLengths:
    """One prompt with its completions, tokens."""

    prompt: int
    completions: tuple[int, ...]
    """Of all, each sampled."""
    distinct: tuple[int, ...]
    """Of those that differ: equal ones have equal log-probabilities and gradients."""


def layer_products(shape: ModelShape) -> int:
    """Numbers in one layer's matrices, each multiplied once a token: query, key, value, output, gated MLP."""
    query, key = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    return 2 * shape.hidden * query + 2 * shape.hidden * key + 3 * shape.hidden * shape.intermediate


def attended(tokens: int, before: int = 0) -> int:
    """Keys that `tokens` causal tokens see in total, when `before` others precede them: each sees itself too."""
    return tokens * before + tokens * (tokens + 1) // 2


def forward_flops(shape: ModelShape, *, tokens: int, keys: int, logits: int) -> int:
    """One forward pass: `tokens` through all layers, `keys` attended in total by each head, `logits` rows of
    output."""
    linear = 2 * shape.layers * layer_products(shape) * tokens
    attention = 4 * shape.layers * shape.heads * shape.head_dim * keys
    return linear + attention + 2 * shape.hidden * shape.vocabulary * logits


def group_forward_flops(shape: ModelShape, prompt: int, completions: Sequence[int]) -> int:
    """The forward pass of one group, generated or trained on; lengths in tokens.

    A completion's last token is predicted and never an input; its first token is predicted by the prompt's last one,
    by the same logits for the whole group.
    """
    inputs = [max(0, length - 1) for length in completions]
    keys = attended(prompt) + sum(attended(count, prompt) for count in inputs)
    return forward_flops(shape, tokens=prompt + sum(inputs), keys=keys, logits=1 + sum(inputs))


def generation_flops(shape: ModelShape, groups: Sequence[GroupLengths]) -> int:
    """Every completion token sampled once, every prompt read once."""
    return sum(group_forward_flops(shape, group.prompt, group.completions) for group in groups)


def training_flops(shape: ModelShape, groups: Sequence[GroupLengths]) -> int:
    """One forward and one backward pass over what differs."""
    return 3 * sum(group_forward_flops(shape, group.prompt, group.distinct) for group in groups)


def utilisation(shape: ModelShape, *, tokens: float, seconds: float, peak: float) -> float:
    """Model FLOPs utilisation of training, in [0, 1]: 6 x parameters a forwarded token, over `peak` FLOP/s."""
    return 6 * shape.parameters * tokens / (seconds * peak) if seconds > 0 else 0.0
