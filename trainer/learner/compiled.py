"""torch.compile at first use: torch's compiler takes seconds to import, and only devices need it."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch


@cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` as kernels that serve any sizes; the same object for the same function."""
    kernel: Callable[..., Any] = torch.compile(function, dynamic=True)
    return kernel
