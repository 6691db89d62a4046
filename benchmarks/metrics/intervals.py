"""Bootstrap confidence intervals of means over questions (Efron and Tibshirani, 1993, percentile method)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Interval(NamedTuple):
    """A mean with the ends of its confidence interval, in the unit of the values."""

    mean: float
    low: float
    high: float


def bootstrap_mean(
    values: Sequence[float], *, resamples: int = 2000, seed: int = 0, confidence: float = 0.95
) -> Interval:
    """Resamples questions with replacement. Raises ValueError without values."""
    if not len(values):
        raise ValueError("an interval needs at least one value")
    sample = np.asarray(values, dtype=np.float64)
    means = resampled_means(sample, resamples=resamples, seed=seed)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(sample.mean()), float(low), float(high))


def resampled_means(sample: np.ndarray, *, resamples: int, seed: int) -> np.ndarray:
    """Means of `resamples` draws with replacement, shape (resamples,).

    A draw is a vector of multinomial counts over the distinct values, which gives the same distribution as drawing
    questions one by one and costs little for scores that take few values.
    """
    values, counts = np.unique(sample, return_counts=True)
    generator = np.random.default_rng(seed)
    draws = generator.multinomial(len(sample), counts / len(sample), size=resamples)
    return draws @ values / len(sample)
