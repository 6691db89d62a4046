"""Whole parameters of a model whose parameters may be sharded (ZeRO-3), a layer at a time."""

import re
from collections.abc import Iterator
from itertools import groupby

import torch
from torch import nn

_LAYER = re.compile(r"^(.*?\.\d+)\.")


def gathered_weights(model: nn.Module, *, sharded: bool) -> Iterator[tuple[str, torch.Tensor]]:
    """Every parameter once, under its Hugging Face name; tied ones under their first name.

    With `sharded` this is collective: every rank must exhaust it. A layer's parameters are whole only until the next
    is asked for, so no rank ever holds the whole model.
    """
    for _, members in groupby(model.named_parameters(), key=lambda item: _layer(item[0])):
        named = list(members)
        if not sharded:
            yield from ((name, p.detach()) for name, p in named)
            continue
        import deepspeed

        with deepspeed.zero.GatheredParameters([p for _, p in named]):
            yield from ((name, p.detach()) for name, p in named)


def _layer(name: str) -> str:
    found = _LAYER.match(name)
    return found.group(1) if found else name
