"""Whole parameters of a model whose parameters may be sharded (ZeRO-3), a layer at a time."""

import contextlib
import re
from collections.abc import Iterator
from itertools import groupby

import torch
from torch import nn

from trainer.learner.lora import merged, plain_name

_LAYER = re.compile(r"^(.*?\.\d+)\.")


def gathered_weights(model: nn.Module, *, sharded: bool) -> Iterator[tuple[str, torch.Tensor]]:
    """Every weight once, under its Hugging Face name; tied ones under their first name, adapters merged. Buffers that
    belong to a checkpoint come last.

    With `sharded` this is collective: every rank must exhaust it. A layer's parameters are whole only until the next
    is asked for: gathering itself never makes a rank hold the whole model. Who collects what it yields does: senders
    keep one copy on rank 0 for the engines to read, `save_state` one in rank 0's host memory.
    """
    for named in _whole_layers(model, sharded=sharded):
        yield from merged(model, named)
    yield from persistent_buffers(model)


def persistent_buffers(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """What a model's checkpoint holds beside its parameters, under its Hugging Face name; never sharded."""
    for prefix, module in model.named_modules():
        for name, buffer in module.named_buffers(recurse=False):
            if name not in module._non_persistent_buffers_set:
                plain = plain_name(f"{prefix}.{name}" if prefix else name)
                if plain is not None:
                    yield plain, buffer.detach()


def gathered_trainable(model: nn.Module, *, sharded: bool) -> Iterator[tuple[str, torch.Tensor]]:
    """Every parameter that is trained, once, under the model's own name; collective with `sharded`, as above."""
    for named in _whole_layers(model, sharded=sharded):
        yield from ((name, p.detach()) for name, p in named if p.requires_grad)


def _whole_layers(model: nn.Module, *, sharded: bool) -> Iterator[list[tuple[str, nn.Parameter]]]:
    for _, members in groupby(model.named_parameters(), key=lambda item: _layer(item[0])):
        named = list(members)
        with _whole([p for _, p in named], sharded=sharded):
            yield named


def _whole(parameters: list[nn.Parameter], *, sharded: bool) -> contextlib.AbstractContextManager[None]:
    if not sharded:
        return contextlib.nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters(parameters)


def _layer(name: str) -> str:
    found = _LAYER.match(name)
    return found.group(1) if found else name
