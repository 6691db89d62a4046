"""Qwen2's norms, gated activation and rotary embedding as one kernel each, on a GPU, where an operation costs a walk
through the device's memory and what it leaves for the backward pass limits the micro-batch.

Guarantees: the same parameters under the same names and the same function; results differ from transformers' by
rounding (a norm's product with its weight is rounded once, after it). Compiled operations keep their inputs alone for
the backward pass and compute the rest again inside its kernel. Other architectures stay as they are.
"""

import torch
from torch import nn
from torch.nn import functional
from transformers.models.qwen2.modeling_qwen2 import Qwen2Attention, Qwen2MLP, Qwen2RMSNorm, apply_rotary_pos_emb

from trainer.learner.compiled import compiled
from trainer.learner.fused import cpu


def fuse(model: nn.Module) -> None:
    """Changes how every norm, MLP and attention of a Qwen2 is computed, in place; nothing in another model."""
    for module in model.modules():
        if type(module) is Qwen2RMSNorm:
            module.__class__ = FusedNorm
        elif type(module) is Qwen2MLP and module.config.hidden_act == "silu":
            module.__class__ = FusedMLP
        elif type(module) is Qwen2Attention and not module.attention_dropout:
            module.__class__ = FusedAttention


def _gated(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    return functional.silu(gate) * up


class FusedNorm(Qwen2RMSNorm):
    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return functional.rms_norm(hidden_states, self.weight.shape, self.weight, self.variance_epsilon)


class FusedMLP(Qwen2MLP):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        down: torch.Tensor = self.down_proj(compiled(_gated)(self.gate_proj(x), self.up_proj(x)))
        return down


class FusedAttention(cpu.FusedAttention):
    def rotated(
        self, query: torch.Tensor, key: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        both: tuple[torch.Tensor, torch.Tensor] = compiled(apply_rotary_pos_emb)(query, key, cos, sin, unsqueeze_dim=2)
        return both
