"""From component values to one reward.

`published` (FINER-SQL): 0 if the format is 0, else format + execution + f(atomic) + memory, where f applies to queries
that run but differ. Each term has its weight (1 as published); components switched off add nothing. Penalties are
deducted, never below 0.

`rank_correct_first` (strict): any wrong answer stays strictly below any right one. Totals of wrong answers are scaled
down to at most RANK_GAP of the lowest total that a right answer can have, and a right answer in a wrong format loses
the format point only.

`memory.needs_execution` (strict): the memory adds nothing to an answer that does not run.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from conf.errors import ConfigError
from conf.schema.reward import NO_RANKS, PublishedShaping, RewardConfig
from rewards.components.penalties import penalty_weights

RANK_GAP = 0.95
RIGHT = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Components:
    """Raw values of one completion."""

    format: float | None
    """0 or 1; None where the prompt asks for no form: it then adds nothing and gates nothing."""
    execution: int
    """0, 1 or 2."""
    atomic: float | None
    """Best similarity to a gold in [0, 1], 0 without SQL; None with the component off."""
    memory: float | None
    """Alignment in [0, 1]; None with the component off."""
    penalties: Mapping[str, float] = field(default_factory=dict)
    """Values in [0, 1] of the penalties that are on."""


class Combiner:
    """Applies weights, gate, shaping and penalties. Raises ConfigError when right answers cannot be kept above wrong
    ones."""

    def __init__(self, config: RewardConfig) -> None:
        self._config = config
        self._penalties = penalty_weights(config.penalties)
        self._scale = self._wrong_scale() if config.rank_correct_first else 1.0

    def total(self, values: Components) -> float:
        """The reward of one scored completion."""
        right = values.execution == RIGHT
        if self.gated(values):
            return 0.0
        penalty = sum(weight * values.penalties[name] for name, weight in self._penalties.items())
        total = max(0.0, self._sum(values) - penalty)
        return total if right else self._scale * total

    def gated(self, values: Components) -> bool:
        """Whether the format alone makes the total 0."""
        config = self._config
        wrong = config.format.enabled and config.format_gate and values.format == 0
        return wrong and not (values.execution == RIGHT and config.rank_correct_first)

    def shaped(self, similarity: float) -> float:
        """f(s), the atomic term for a similarity in [0, 1]."""
        shaping = self._config.atomic.shaping
        if isinstance(shaping, PublishedShaping):
            rest = (1.0 - shaping.epsilon) * shaping.beta * similarity**shaping.gamma
            return shaping.epsilon * similarity + rest
        return shaping.scale * similarity**shaping.power

    def _sum(self, values: Components) -> float:
        config = self._config
        total = 0.0
        if config.format.enabled and values.format is not None:
            total += config.format.weight * values.format
        if config.execution.enabled:
            total += config.execution.weight * values.execution
        unpaid = config.memory.needs_execution and values.execution == 0
        if config.memory.enabled and values.memory is not None and not unpaid:
            total += config.memory.weight * values.memory
        # Without the execution term a right answer must not fall behind a near miss: its overlap counts too.
        graded = values.execution == 1 or (values.execution == RIGHT and not config.execution.enabled)
        if config.atomic.enabled and values.atomic is not None and graded:
            total += config.atomic.weight * self.shaped(values.atomic)
        return total

    def _wrong_scale(self) -> float:
        highest_wrong = self._sum(Components(format=1.0, execution=1, atomic=1.0, memory=1.0))
        lowest_right = self._sum(Components(format=0.0, execution=RIGHT, atomic=0.0, memory=1.0))
        lowest_right -= sum(self._penalties.values())
        if lowest_right <= 0.0:
            raise ConfigError(NO_RANKS)
        return min(1.0, RANK_GAP * lowest_right / highest_wrong) if highest_wrong > 0.0 else 1.0
