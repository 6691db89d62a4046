"""What a transport is given: it knows bytes and nothing of models (trainer/learner/gather.py does)."""

from collections.abc import Iterable

import torch

NamedTensors = Iterable[tuple[str, torch.Tensor]]
"""(name in the Hugging Face state dict, full tensor on any device); each is read before the next is asked for."""


def wire_dtype(name: str) -> torch.dtype:
    """Element type of rollout.engine.dtype, in which weights are sent."""
    return {"bfloat16": torch.bfloat16, "float32": torch.float32}[name]
