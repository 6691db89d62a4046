"""One number for each completion by which its group compares it: the total, or components normalised one by one.

Guarantees: an unscorable result stays None; a component that was not computed for a completion adds nothing to it and
enters no mean.
"""

from collections.abc import Mapping, Sequence

from conf.schema.algo import AlgoConfig, OverlongConfig
from conf.schema.reward import RewardConfig
from rollout.carriers import ScoredGroup
from trainer.batch.advantage import EPSILON, deviation, mean

Values = Sequence[float | None]


def component_weights(config: RewardConfig) -> dict[str, float]:
    """Weight of each raw component that is switched on."""
    parts = (
        ("format", config.format.enabled, config.format.weight),
        ("execution", config.execution.enabled, config.execution.weight),
        ("atomic", config.atomic.enabled, config.atomic.weight),
        ("memory", config.memory.enabled, config.memory.weight),
    )
    return {name: weight for name, enabled, weight in parts if enabled}


def compared_rewards(
    group: ScoredGroup, algo: AlgoConfig, *, weights: Mapping[str, float], completion_budget: int
) -> list[float | None]:
    """What `group_advantages` takes for one group.

    `normalised_components`: sum_k w_k (r_k - mean(r_k)) / (deviation(r_k) + 1e-4) inside the group (GDPO, arXiv
    2601.05242; TRL's multi_objective_aggregation="normalize_then_sum"). `completion_budget`: longest completion that
    sampling allows, tokens.
    """
    scored = [r.status == "scored" and r.total is not None for r in group.results]
    lengths = [len(completion.token_ids) for completion in group.group.completions]
    overlong = [overlong_deduction(length, completion_budget, algo.overlong) for length in lengths]
    if algo.advantage.rewards == "total":
        totals = [r.total for r in group.results]
        return [t - o if s and t is not None else None for s, t, o in zip(scored, totals, overlong, strict=True)]
    parts: list[Values] = [
        _normalised([r.components.get(name) if s else None for s, r in zip(scored, group.results, strict=True)], weight)
        for name, weight in weights.items()
    ]
    if algo.overlong.buffer_tokens:
        parts.append(
            _normalised([-o if s else None for s, o in zip(scored, overlong, strict=True)], algo.overlong.factor)
        )
    sums = [sum(value for value in values if value is not None) for values in zip(*parts, strict=True)]
    return [value if s else None for s, value in zip(scored, sums, strict=True)]


def overlong_deduction(length: int, budget: int, config: OverlongConfig) -> float:
    """0 up to budget - buffer tokens, then linear to `factor` at the budget (DAPO, arXiv 2503.14476, eq. 13)."""
    if config.buffer_tokens == 0:
        return 0.0
    return config.factor * min(1.0, max(0.0, (length - (budget - config.buffer_tokens)) / config.buffer_tokens))


def _normalised(values: Values, weight: float) -> Values:
    present = [value for value in values if value is not None]
    if not present:
        return values
    centre, divisor = mean(present), deviation(present) + EPSILON
    return [None if value is None else weight * (value - centre) / divisor for value in values]
