"""Whether a batch was sampled by the policy that the learner believes: before it is trained on."""

import math

from trainer.learner.agreement import ENOUGH, check_difference
from trainer.loss.statistics import SUMS, Statistics

OLDER = 1.0
"""How far tokens may be where too few are of the trained version, nats a token: older ones differ by what was learned
since. Adam's first step on a gradient, after many without one, moved a small policy by 0.1 nats a token; other weights
are some nats away. This finds gross faults alone: trainer/pipeline/fresh.py looks at the trained version's own
tokens."""


def check_weights(statistics: Statistics, limit: float | None) -> dict[str, float]:
    """The metric of the check, if it is of fresh tokens; `statistics` are those of all ranks.

    Raises WrongWeights where engine and learner differ by more than `limit` nats a token (None: any difference will
    do).
    """
    difference, fresh = engine_distance(statistics)
    if limit is not None and fresh:
        check_difference(difference, limit, of="over tokens of the trained version")
    elif limit is not None:
        check_difference(difference, max(OLDER, limit), of="over tokens of older versions too")
    return {"mismatch/after_sync_abs_mean": difference} if fresh else {}


def engine_distance(statistics: Statistics) -> tuple[float, bool]:
    """Mean absolute difference of learner and engine log-probabilities, nats, from globally reduced statistics, and
    whether it is of fresh tokens.

    Tokens of the version that is trained differ by rounding alone; older ones also by what the policy has learned
    since, so they count only where there are few fresh ones: a single token may well be far away in bfloat16. nan
    without any token.
    """
    total = dict(zip(SUMS, statistics.sums.tolist(), strict=True))
    if total["fresh"] and total["fresh"] >= min(ENOUGH, total["tokens"]):
        return total["fresh_logp_abs"] / total["fresh"], True
    return (total["logp_abs"] / total["tokens"] if total["tokens"] else math.nan), False
