"""AdamW for unsharded parameters that clips by global norm and refuses gradients that are not finite.

Higher ZeRO stages shard gradients and do both inside DeepSpeed; at stage 0 DeepSpeed would apply a NaN.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from conf.schema.learner import LearnerConfig


class GuardedAdamW(torch.optim.AdamW):
    """`step` reads gradients that are already averaged over ranks, so every rank decides alike."""

    def __init__(self, groups: Iterable[dict[str, Any]], *, max_grad_norm: float, **keywords: Any) -> None:
        super().__init__(groups, **keywords)
        self._max_grad_norm = max_grad_norm
        self.grad_norm = 0.0
        """Global L2 norm of the last gradients before clipping."""
        self.applied = True
        """False: the last gradients were not finite and the weights were left as they were."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        parameters = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters])
        self.grad_norm = norm.item()
        self.applied = bool(torch.isfinite(norm))
        if self.applied:
            torch.nn.utils.clip_grads_with_norm_(parameters, self._max_grad_norm, norm)
            super().step(closure)


def build_optimizer(module: nn.Module, config: LearnerConfig) -> torch.optim.AdamW:
    """torch's fused AdamW; matrices decay by `weight_decay`, vectors (norms, biases) do not."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    keywords: dict[str, Any] = {
        "lr": config.learning_rate,
        "betas": (config.beta1, config.beta2),
        "fused": True,
    }
    if config.zero_stage == 0:
        return GuardedAdamW(groups, max_grad_norm=config.max_grad_norm, **keywords)
    return torch.optim.AdamW(groups, **keywords)
