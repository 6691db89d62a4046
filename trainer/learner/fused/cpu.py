"""Qwen2's norms and rotary embedding as single operations with gradients by hand: float32 on the CPU, where an
operation costs a walk through memory.

Guarantees: the same parameters under the same names and the same function; results differ from transformers' by
rounding. Fusing the MLP or the products of queries, keys and values brings nothing on top (docs/performance.md). Other
architectures stay as they are.
"""

from typing import Any

import torch
from torch import nn
from transformers import Cache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.qwen2.modeling_qwen2 import Qwen2Attention, Qwen2RMSNorm


def fuse(model: nn.Module) -> None:
    """Changes how every norm and attention of a Qwen2 is computed, in place; nothing in another model."""
    for module in model.modules():
        if type(module) is Qwen2RMSNorm:
            module.__class__ = FusedNorm
        elif type(module) is Qwen2Attention and not module.attention_dropout:
            module.__class__ = FusedAttention


class FusedNorm(Qwen2RMSNorm):
    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        normed: torch.Tensor = _Norm.apply(hidden_states, self.weight, self.variance_epsilon)
        return normed


class FusedAttention(Qwen2Attention):
    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor | None,
        past_key_values: Cache | None = None,
        **keywords: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """As Qwen2Attention's, without a cache."""
        assert past_key_values is None, "a fused policy is trained, not sampled from"
        shape = (*hidden_states.shape[:-1], -1, self.head_dim)
        projected = (self.q_proj, self.k_proj, self.v_proj)
        query, key, value = (part(hidden_states).view(shape) for part in projected)
        heads = (part.transpose(1, 2) for part in (*self.rotated(query, key, *position_embeddings), value))
        attend = ALL_ATTENTION_FUNCTIONS[self.config._attn_implementation]
        keywords |= {"dropout": 0.0, "scaling": self.scaling, "sliding_window": self.sliding_window}
        out, weights = attend(self, *heads, attention_mask, **keywords)
        return self.o_proj(out.reshape(*hidden_states.shape[:-1], -1)), weights

    def rotated(
        self, query: torch.Tensor, key: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`query` and `key` [B, N, heads, D] at the positions whose angles [B, N, D] are given."""
        cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)
        return _Rotary.apply(query, cos, sin), _Rotary.apply(key, cos, sin)


class _Norm(torch.autograd.Function):
    """y = x w / sqrt(mean(x^2) + eps); with n = x / sqrt(..): dx = (w dy - n mean(w dy n)) / sqrt(..)."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        size = hidden.shape[-1]
        scale = torch.linalg.vector_norm(hidden, dim=-1, keepdim=True).square_().div_(size).add_(epsilon).rsqrt_()
        ctx.save_for_backward(hidden, weight, scale)
        return (hidden * scale).mul_(weight)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden, weight, scale = ctx.saved_tensors
        size = hidden.shape[-1]
        normed = hidden * scale
        product = grad * normed
        grad_weight = product.view(-1, size).sum(0)
        along = (product @ weight).div_(size).unsqueeze(-1)
        grad_hidden = (grad * weight).addcmul_(normed, along, value=-1.0).mul_(scale)
        return grad_hidden, grad_weight, None


class _Rotary(torch.autograd.Function):
    """(a cos - b sin, b cos + a sin) of a vector's halves (a, b); backwards by the opposite angle.

    Vectors are [.., heads, D]; `cos` and `sin` [.., 1, D], each of two equal halves (Su et al. 2021, section 3.4.2,
    with the pairs that transformers makes).
    """

    @staticmethod
    def forward(ctx: Any, vectors: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotated(vectors, cos, sin)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _rotated(grad, cos, -sin), None, None


def _rotated(vectors: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    first, second = vectors.chunk(2, dim=-1)
    half = sin.shape[-1] // 2
    signed = torch.cat([-sin[..., :half], sin[..., half:]], dim=-1)
    return (vectors * cos).addcmul_(torch.cat([second, first], dim=-1), signed)
