"""Is one run better than another on the same questions? Paired tests, and their correction."""

from collections.abc import Sequence
from math import comb
from typing import NamedTuple

import numpy as np

from records.statistics.intervals import Interval, difference_interval

BLOCK = 4_000_000
"""Signs drawn at a time, which bounds the memory."""


class Discordance(NamedTuple):
    """Questions on which two runs disagree, and the two-sided p-value of McNemar's exact test."""

    only_first: int
    only_second: int
    p_value: float


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> Discordance:
    """Exact binomial test on the discordant pairs (McNemar, 1947; Dror et al., 2018). Raises ValueError on unequal
    lengths.
    """
    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    n, k = only_first + only_second, min(only_first, only_second)
    tail = sum(comb(n, i) for i in range(k + 1))
    p_value = min(1.0, 2 * tail / 2**n)
    return Discordance(only_first, only_second, p_value)


def randomisation(differences: Sequence[float], *, draws: int = 10_000, seed: int = 0) -> float:
    """Two-sided p-value of the paired randomisation test (Fisher, 1935; Dror et al., 2018): how often random signs give
    a sum at least as far from 0, the observed signs counted among the draws.
    """
    sizes = np.abs(np.asarray(differences, dtype=np.float64))
    sizes = sizes[sizes > 0]
    if not len(sizes):
        return 1.0
    observed = abs(float(np.sum(differences)))
    generator, reached, done = np.random.default_rng(seed), 1, 0
    while done < draws:
        count = min(draws - done, max(1, BLOCK // len(sizes)))
        signs = generator.integers(0, 2, size=(count, len(sizes)), dtype=np.int8)
        sums = np.abs(2.0 * (signs @ sizes) - sizes.sum())
        # Sums of the same differences in other order are equal up to rounding.
        reached += int(np.count_nonzero(sums >= observed - 1e-9 * sizes.sum()))
        done += count
    return reached / (draws + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values of one family of tests, in their order (Holm, 1979)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, position in enumerate(order):
        largest = min(1.0, max(largest, p_values[position] * (len(order) - rank)))
        adjusted[position] = largest
    return adjusted


def paired_difference(first: Sequence[float], second: Sequence[float]) -> Interval:
    """Mean of second - first with its interval. Raises ValueError on unequal lengths or without values."""
    if len(first) != len(second) or not len(first):
        raise ValueError(f"paired runs need the same questions, got {len(first)} and {len(second)}")
    return difference_interval([b - a for a, b in zip(first, second, strict=True)])
