"""95 % confidence intervals of means over questions: the one place for benchmarks, comparisons, studies, model cards.

It lies here because packages that do not know each other report means. Guarantees: intervals that keep their coverage
where scores are nearly all equal, above all near 100 %, and never end at a single point. They say what other questions
of the same kind would change, nothing about other seeds or other data.

Resampling does not serve here: 50 questions of which all are right give every bootstrap, BCa included, the interval
[1, 1], and with 97 % right they cover 83 to 86 % where 95 are claimed. So shares have Wilson's interval (1927), with
Brown, Cai and DasGupta's correction (2001) for up to three questions on one side, where Wilson's alone falls to 84 %.
Other means have the normal one with pseudo-observations at the ends of the scale, as Agresti and Coull (1998) do for
shares and Agresti and Min (2005) for paired differences.
"""

from collections.abc import Sequence
from math import fsum, sqrt
from typing import NamedTuple

Z95 = 1.959964
"""The 97.5 % point of the normal distribution."""
POISSON = {1: 0.051293, 2: 0.355361, 3: 0.817691}
"""Events seen -> the expectation of which as many or more are seen with probability 5 %: half the 5 % point of the
chi-squared distribution with twice as many degrees of freedom."""


class Interval(NamedTuple):
    """A mean with the ends of its 95 % confidence interval, in the unit of the values."""

    mean: float
    low: float
    high: float


def share_interval(share: float, count: int) -> Interval:
    """Wilson's interval of a share seen in `count` questions, corrected near 0 and 1. Raises ValueError without
    questions.
    """
    if count < 1:
        raise ValueError("an interval needs at least one value")
    square = Z95**2 / count
    centre = (share + square / 2) / (1 + square)
    half = Z95 / (1 + square) * sqrt(share * (1 - share) / count + square / (4 * count))
    low, high = min(share, centre - half), max(share, centre + half)
    seen = round(share * count)
    if 2 * seen <= count and seen in POISSON:
        low = min(low, POISSON[seen] / count)
    if 2 * seen >= count and count - seen in POISSON:
        high = max(high, 1.0 - POISSON[count - seen] / count)
    return Interval(share, max(0.0, low), min(1.0, high))


def mean_interval(values: Sequence[float]) -> Interval:
    """Wilson's where all values are 0 or 1. Else Z95^2 pseudo-observations, half at 0 and half at 1, or at the least
    and greatest value where those lie beyond. Raises ValueError without values.
    """
    if not len(values):
        raise ValueError("an interval needs at least one value")
    if all(value in (0, 1) for value in values):
        return share_interval(sum(values) / len(values), len(values))
    low, high = min(0.0, *values), max(1.0, *values)
    return _with_pseudo_observations(values, low, high, Z95**2 / 2)


def difference_interval(differences: Sequence[float]) -> Interval:
    """Of the mean of paired differences of scores in [0, 1]: one pseudo-observation at -1 and one at 1, or as far out
    as the differences go. Raises ValueError without values.
    """
    if not len(differences):
        raise ValueError("an interval needs at least one value")
    end = max(1.0, *map(abs, differences))
    return _with_pseudo_observations(differences, -end, end, 1.0)


def _with_pseudo_observations(values: Sequence[float], low: float, high: float, weight: float) -> Interval:
    """`weight` observations at each of `low` and `high`; the mean is that of the values alone."""
    mean, count = fsum(values) / len(values), len(values) + 2 * weight
    centre = (fsum(values) + weight * (low + high)) / count
    squares = fsum((value - centre) ** 2 for value in values) + weight * ((low - centre) ** 2 + (high - centre) ** 2)
    half = Z95 * sqrt(squares) / count
    return Interval(mean, max(low, min(mean, centre - half)), min(high, max(mean, centre + half)))
