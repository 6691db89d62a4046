"""Which tensors of the learner's model an engine needs, in checkpoint format.

Extraction knows models and nothing of transports; a transport (one file each beside this one) knows bytes and nothing
of models. A learner whose parameters are sharded passes its own iterable that gathers layer by layer.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import nn

NamedTensors = Iterable[tuple[str, torch.Tensor]]
"""(name in the Hugging Face state dict, full tensor on any device); each is read before the next is asked for."""


def named_weights(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Every parameter of an unsharded Hugging Face model once.

    Tied parameters appear under their first name only, so the output embedding of a tied model is left out, as in its
    checkpoint.
    """
    for name, parameter in model.named_parameters():
        yield name, parameter.detach()


def wire_dtype(name: str) -> torch.dtype:
    """Element type of rollout.engine.dtype, in which weights are sent."""
    return {"bfloat16": torch.bfloat16, "float32": torch.float32}[name]
