"""Completions of recorded lengths, for speed measurements with weights that would never end one.

Guarantees: a group's lengths depend on seed and group id alone, not on the order of requests. A completion that ends by
itself before its budget stays shorter.
"""

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from conf.errors import QuorumError
from conf.schema.rollout import SamplingConfig
from rollout.carriers import Group, Prompt

SPREAD = (
    0.53,
    0.57,
    0.62,
    0.81,
    0.81,
    0.86,
    0.86,
    0.86,
    0.86,
    0.91,
    1.05,
    1.1,
    1.1,
    1.1,
    1.15,
    1.2,
    1.34,
    1.39,
    1.44,
    1.53,
)
"""Completion lengths over their mean, at every twentieth of 672 completions that the quickstart sampled."""


class Source(Protocol):
    """The rollout pool."""

    async def generate(self, prompt: Prompt, *, group_id: str, n: int, sampling: SamplingConfig) -> Group: ...


class DrawnLengths:
    """A source of groups whose completions each have a budget of their own."""

    def __init__(self, source: Source, lengths: Sequence[int], *, seed: int) -> None:
        """`lengths`: tokens; longer ones than sampling.max_tokens are cut to it."""
        self._source, self._lengths, self._seed = source, tuple(lengths), seed

    async def generate(self, prompt: Prompt, *, group_id: str, n: int, sampling: SamplingConfig) -> Group:
        """As n requests of one completion, which the engine's prefix cache lets share the prompt."""
        drawn = random.Random(f"{self._seed}/{group_id}").choices(self._lengths, k=n)
        parts = await asyncio.gather(
            *(
                self._source.generate(
                    prompt,
                    group_id=f"{group_id}/{number}",
                    n=1,
                    sampling=sampling.model_copy(update={"max_tokens": min(length, sampling.max_tokens)}),
                )
                for number, length in enumerate(drawn)
            )
        )
        return Group(id=group_id, prompt=prompt, completions=tuple(part.completions[0] for part in parts))


def read_lengths(file: Path) -> list[int]:
    """One positive number a line. Raises QuorumError."""
    try:
        lengths = [int(line) for line in file.read_text(encoding="utf-8").split()]
    except (OSError, ValueError) as error:
        raise QuorumError(f"rollout.lengths={file}: one completion length a line is expected: {error}") from error
    if not lengths or min(lengths) < 1:
        raise QuorumError(f"rollout.lengths={file}: at least one length is expected, and all of them positive")
    return lengths


def typical_lengths(mean: float) -> list[int]:
    """Twenty completion lengths, tokens, spread about this mean as SPREAD is."""
    return [max(1, round(share * mean)) for share in SPREAD]
