"""Is one run better than another on the same questions? Paired tests."""

from collections.abc import Sequence
from math import comb
from typing import NamedTuple

import numpy as np

from benchmarks.metrics.intervals import Interval, resampled_means


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


def paired_difference(
    first: Sequence[float], second: Sequence[float], *, resamples: int = 10_000, seed: int = 0, confidence: float = 0.95
) -> Interval:
    """Mean of second - first with its bootstrap interval. Raises ValueError on unequal lengths or without values."""
    if len(first) != len(second) or not len(first):
        raise ValueError(f"paired runs need the same questions, got {len(first)} and {len(second)}")
    differences = np.asarray(second, dtype=np.float64) - np.asarray(first, dtype=np.float64)
    means = resampled_means(differences, resamples=resamples, seed=seed)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(differences.mean()), float(low), float(high))
