"""Group-relative advantages.

Guarantees: an unscorable result (reward None) enters no mean and no deviation and gets advantage 0.
Does not filter: groups without variance get advantages of 0 here and are dropped by `trainer/batch/filter.py`.
"""

import math
from collections.abc import Sequence

from conf.schema.algo import AdvantageConfig

EPSILON = 1e-4
"""Added to the deviation before dividing, as in TRL's GRPOTrainer."""


def group_advantages(rewards: Sequence[Sequence[float | None]], config: AdvantageConfig) -> list[list[float]]:
    """Advantages of the completions of all groups of a step, in the same order and shape as `rewards`.

    A_i = r_i - mean(group), GRPO (DeepSeekMath, arXiv 2402.03300, section 4.1.2); divided by the sample deviation (n
    - 1, plus 1e-4) of the group, of the whole batch (arXiv 2508.08221), or not at all (Dr. GRPO, arXiv 2503.20783).
    With `leave_one_out` the baseline is the mean of the other completions (RLOO, arXiv 2402.14740). The
    batch is all that was sampled for the step, groups without variance included, as in TRL.
    """
    batch_deviation = deviation([r for group in rewards for r in group if r is not None])
    return [_one_group(group, config, batch_deviation) for group in rewards]


def _one_group(rewards: Sequence[float | None], config: AdvantageConfig, batch_deviation: float) -> list[float]:
    scored = [r for r in rewards if r is not None]
    if len(scored) < 2:
        return [0.0] * len(rewards)
    centre = mean(scored)
    factor = len(scored) / (len(scored) - 1) if config.leave_one_out else 1.0
    divisor = {
        "group": deviation(scored) + EPSILON,
        "batch": batch_deviation + EPSILON,
        "none": 1.0,
    }[config.scale]
    return [0.0 if r is None else factor * (r - centre) / divisor for r in rewards]


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def deviation(values: Sequence[float]) -> float:
    """Sample standard deviation (n - 1 degrees of freedom); 0 for fewer than two values."""
    if len(values) < 2:
        return 0.0
    centre = mean(values)
    return math.sqrt(math.fsum((v - centre) ** 2 for v in values) / (len(values) - 1))
