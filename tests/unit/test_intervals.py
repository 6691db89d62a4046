"""Confidence intervals: values by hand, and how often they hold the mean that they claim to."""

from collections.abc import Callable
from math import comb

import numpy as np
import pytest

from records.statistics.intervals import difference_interval, mean_interval, share_interval

Draw = Callable[[np.random.Generator, int], np.ndarray]
LEAST = 0.93
"""Of the claimed 95 %: the coverage of any interval for counts swings around its level."""


def coverage(draw: Draw, mean: float, count: int, interval: Callable[..., tuple[float, float, float]]) -> float:
    generator = np.random.default_rng(7)
    found = [interval(draw(generator, count).tolist()) for _ in range(600)]
    return float(np.mean([low - 1e-12 <= mean <= high + 1e-12 for _, low, high in found]))


def test_wilsons_interval_by_hand() -> None:
    _, low, high = share_interval(0.5, 100)
    assert (round(low, 4), round(high, 4)) == (0.4038, 0.5962)
    mean, low, high = share_interval(0.0, 10)
    assert (mean, low) == (0.0, 0.0)
    assert high == pytest.approx(0.2775, abs=1e-4)
    # One wrong of 50: Wilson's upper end is 0.9965, which 5 % of all samples from 0.999 would miss.
    assert share_interval(0.98, 50)[1:] == (pytest.approx(0.8950, abs=1e-4), pytest.approx(1 - 0.051293 / 50))
    assert share_interval(1.0, 2)[1:] == (pytest.approx(0.3424, abs=1e-4), 1.0)
    assert mean_interval([1.0] * 800 + [0.0] * 200) == share_interval(0.8, 1000)
    assert mean_interval([1] * 50)[1:] == (pytest.approx(0.9287, abs=1e-4), 1.0)


def test_other_means_by_hand() -> None:
    # Two halves and 3.8415 pseudo-observations: the centre is 0.5, the squares 3.8415 / 4.
    mean, low, high = mean_interval([0.5, 0.5])
    assert mean == 0.5
    half = 1.959964 * (3.8414589 / 4) ** 0.5 / 5.8414589
    assert (low, high) == (pytest.approx(0.5 - half), pytest.approx(0.5 + half))
    mean, low, high = difference_interval([0.0] * 100)
    assert (mean, low, high) == (0.0, pytest.approx(-1.959964 * 2**0.5 / 102), pytest.approx(1.959964 * 2**0.5 / 102))
    values = np.random.default_rng(0).beta(2, 3, 5000)
    half = 1.959964 * values.std() / 5000**0.5
    assert mean_interval(values.tolist())[1:] == (
        pytest.approx(values.mean() - half, abs=3e-4),
        pytest.approx(values.mean() + half, abs=3e-4),
    )
    for interval in (mean_interval, difference_interval):
        with pytest.raises(ValueError, match="at least one value"):
            interval([])


def binomial(count: int, share: float) -> list[float]:
    return [comb(count, k) * share**k * (1 - share) ** (count - k) for k in range(count + 1)]


@pytest.mark.parametrize("count", [20, 50, 100, 200])
def test_shares_are_covered(count: int) -> None:
    """Exactly, not by sampling: the probability of all counts whose interval holds the share."""
    intervals = [share_interval(k / count, count) for k in range(count + 1)]
    covered = {}
    for share in (0.5, 0.7, *np.linspace(0.9, 1.0, 101).tolist()):
        counts = zip(binomial(count, share), intervals, strict=True)
        covered[share] = sum(probability for probability, (_, low, high) in counts if low <= share <= high)
    assert min(covered.values()) >= 0.92
    near_one = [value for share, value in covered.items() if share >= 0.97]
    assert float(np.mean(near_one)) >= 0.95
    assert min(near_one) >= 0.927
    assert covered[1.0] == pytest.approx(1.0)


def hard(part: float) -> Draw:
    """mean@30 of a policy that answers all but a part of the questions always; those now and then."""
    return lambda rng, n: rng.binomial(30, np.where(rng.random(n) < part, rng.random(n), 1.0)) / 30


MEANS: dict[str, tuple[Draw, float]] = {
    "mean@n, a tenth uncertain": (hard(0.1), 0.95),
    "mean@n, a twentieth uncertain": (hard(0.05), 0.975),
    "mean@n, a fiftieth uncertain": (hard(0.02), 0.99),
    "mean@n, all alike": (lambda rng, n: rng.binomial(30, 0.98, n) / 30, 0.98),
    "soft F1": (lambda rng, n: rng.beta(0.4, 0.6, n), 0.4),
    "VES near 100": (lambda rng, n: (rng.random(n) < 0.98) * rng.uniform(0.8, 1.4, n), 0.98 * 1.1),
}


@pytest.mark.parametrize("name", MEANS)
@pytest.mark.parametrize("count", [50, 200])
def test_other_means_are_covered(name: str, count: int) -> None:
    draw, mean = MEANS[name]
    assert coverage(draw, mean, count, mean_interval) >= LEAST


@pytest.mark.parametrize(("better", "worse"), [(0.0, 0.0), (0.01, 0.0), (0.01, 0.01), (0.05, 0.02), (0.3, 0.1)])
@pytest.mark.parametrize("count", [50, 200])
def test_differences_are_covered(better: float, worse: float, count: int) -> None:
    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        return rng.choice([1.0, -1.0, 0.0], p=[better, worse, 1 - better - worse], size=n)

    assert coverage(draw, better - worse, count, difference_interval) >= LEAST
