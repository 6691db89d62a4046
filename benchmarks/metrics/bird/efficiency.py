"""BIRD's efficiency scores: VES (Li et al., 2023) and R-VES (the stepped reward of mini_dev).

Both look at the ratio gold time / predicted time over repeated runs, for right answers only, and are as noisy as the
clock: each comes with the spread of the ratio over its repetitions. Source: `clean_abnormal`, `iterated_execute_sql`,
`compute_ves` in evaluation_ves.py.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

STEPS = ((2.0, 1.25), (1.0, 1.0), (0.5, 0.75), (0.25, 0.5), (0.0, 0.25))
"""(ratio from which the reward holds, reward)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Efficiency:
    """Efficiency of one right answer."""

    ratio: float
    """Mean gold / predicted time, outliers left out; above 1 the prediction is faster."""
    spread: float
    """Standard deviation of the ratio over the repetitions."""
    ves: float
    """Square root of the ratio."""
    r_ves: float
    """Square root of the stepped reward."""


def efficiency(gold_s: Sequence[float], predicted_s: Sequence[float]) -> Efficiency:
    """From equally many seconds of alternating runs. Raises ValueError when there are none."""
    ratios = [gold / predicted for gold, predicted in zip(gold_s, predicted_s, strict=True)]
    if not ratios:
        raise ValueError("efficiency needs at least one timed repetition")
    kept = without_outliers(ratios)
    ratio = statistics.fmean(kept)
    return Efficiency(
        ratio=ratio, spread=statistics.pstdev(kept), ves=math.sqrt(ratio), r_ves=math.sqrt(stepped_reward(ratio))
    )


def without_outliers(ratios: Sequence[float]) -> list[float]:
    """The ratios within three standard deviations of their mean; all of them when they are all equal."""
    mean, deviation = statistics.fmean(ratios), statistics.pstdev(ratios)
    return [ratio for ratio in ratios if abs(ratio - mean) < 3 * deviation] or list(ratios)


def stepped_reward(ratio: float) -> float:
    """R-VES reward of a time ratio."""
    return next(reward for start, reward in STEPS if ratio >= start)
