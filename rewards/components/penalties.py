"""Deductions from the total: each is a function of one completion with a value in [0, 1], which its weight in
`reward.penalties` multiplies.

A bonus for x is a deduction of 1 - x: a constant more, which no advantage sees.
"""

from collections.abc import Callable
from dataclasses import dataclass

from conf.schema.reward import PenaltyConfig
from rewards.carriers import SqlTask
from rewards.components.execution import Judged
from rewards.components.repetition import repeated_share
from rewards.sql.parse import Extraction


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What is known of one completion when its penalties are computed."""

    task: SqlTask
    extraction: Extraction
    judged: Judged
    """What executing its query showed."""
    length: float
    """Share of the token budget that it used, in [0, 1]."""


PENALTIES: dict[str, Callable[[Facts], float]] = {
    "length": lambda facts: facts.length,
    "repetition": lambda facts: repeated_share(facts.extraction.reasoning),
}
"""By the name of the setting that holds the weight."""


def penalty_weights(config: PenaltyConfig) -> dict[str, float]:
    """The weights of the penalties that are on."""
    weights: dict[str, float] = config.model_dump()
    return {name: weight for name, weight in weights.items() if weight}


def penalties(facts: Facts, weights: dict[str, float]) -> dict[str, float]:
    """Values in [0, 1] of the penalties that are on."""
    return {name: PENALTIES[name](facts) for name in weights}
