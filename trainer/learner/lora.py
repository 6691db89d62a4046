"""Low-rank adapters inside a Hugging Face model, and the plain weights that they amount to.

Guarantees: names and shapes of merged weights are those of the model without adapters, so engines and checkpoints know
nothing of them. Merging is computed in float32 and leaves the adapters as they are.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import nn
from transformers import PreTrainedModel

from conf.schema.learner import LoraConfig

_ADAPTER = "default"
_BASE = ".base_layer"


def add_adapters(model: PreTrainedModel, config: LoraConfig, *, seed: int) -> None:
    """Puts adapters that change nothing yet into `model` and freezes everything else; equal on all ranks."""
    # Seconds that a learner without adapters need not wait.
    import peft

    settings = peft.LoraConfig(
        r=config.rank, lora_alpha=config.alpha, target_modules="all-linear", lora_dropout=0.0, bias="none"
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(settings, model, adapter_name=_ADAPTER)


def plain_name(name: str) -> str | None:
    """The name of a parameter in the model without adapters; None for an adapter's own."""
    return None if ".lora_" in name else name.replace(_BASE, "")


def merged(model: nn.Module, named: Iterable[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
    """Plain weights of whole parameters of `model`, detached; those without an adapter pass through."""
    for name, parameter in named:
        plain = plain_name(name)
        if plain is None:
            continue
        value = parameter.detach()
        if name.endswith(f"{_BASE}.weight"):
            layer = model.get_submodule(name.removesuffix(f"{_BASE}.weight"))
            down, up = layer.lora_A[_ADAPTER].weight.detach(), layer.lora_B[_ADAPTER].weight.detach()
            change = layer.scaling[_ADAPTER] * (up.float() @ down.float())
            # GPT-2 keeps its linear maps [in, out].
            value = (value.float() + (change.T if layer.fan_in_fan_out else change)).to(value.dtype)
        yield plain, value
