"""Whether a batch was sampled by the policy that the learner believes: before it is trained on."""

from trainer.learner.errors import WrongWeights
from trainer.loss.statistics import Statistics, engine_distance

OLDER = 10.0
"""How much farther tokens may be where all are of older policies: those differ by what was learned since. Adam's first
step on a gradient, after many without one, moved a small policy by 0.1 nats a token; other weights are some nats
away."""


def check_weights(statistics: Statistics, limit: float | None) -> dict[str, float]:
    """The metric of the check, if it is of fresh tokens; `statistics` are those of all ranks.

    Raises WrongWeights where engine and learner differ by more than `limit` nats a token (None: any difference will
    do).
    """
    difference, fresh = engine_distance(statistics)
    if limit is not None and not difference <= (limit if fresh else OLDER * limit):
        older = "" if fresh else f", {OLDER:g} times that for tokens of older policies"
        raise WrongWeights(
            f"stale or wrong weights: the engine's log-probabilities differ from the learner's by {difference:.3g} "
            f"nats a token on average (rollout.max_logprob_difference={limit:g}{older})"
        )
    return {"mismatch/after_sync_abs_mean": difference} if fresh else {}
