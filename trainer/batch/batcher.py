"""What a step's scored groups become for the learner, in three moves: filter, advantages, sequences.

Pure: holds configuration only. Who needs the reference policy for a KL term inside the reward asks it between the
first move and the last (trainer/pipeline/loop.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from conf.schema.algo import AlgoConfig
from trainer.batch.advantage import group_advantages
from trainer.batch.filter import FilteredGroups, Rewards, drop_reason, filter_groups
from trainer.batch.rewards import compared_rewards
from trainer.batch.sequences import training_sequences
from trainer.carriers import ScoredGroup, TrainingSequence


@dataclass(frozen=True, kw_only=True, slots=True)
class Batcher:
    algo: AlgoConfig
    component_weights: Mapping[str, float]
    """Of the reward components that are on; read for algo.advantage.rewards=normalised_components."""
    completion_budget: int
    """Longest completion that sampling allows, tokens."""

    @property
    def resamples(self) -> bool:
        return self.algo.resample

    @property
    def needs_reference_kl(self) -> bool:
        """The reward has a KL term: `sequences` wants its values."""
        return self.algo.kl.place == "reward" and self.algo.kl.coefficient > 0

    def teaches(self, group: ScoredGroup) -> bool:
        """Whether the group's completions differ in what they are compared by."""
        return drop_reason(group, self._rewards(group)) is None

    def filter(self, groups: Sequence[ScoredGroup]) -> FilteredGroups:
        rewards = [self._rewards(group) for group in groups]
        return filter_groups(groups, rewards, drop_zero_variance=self.algo.drop_zero_variance)

    def sequences(
        self,
        groups: Sequence[ScoredGroup],
        filtered: FilteredGroups,
        *,
        version: int,
        kl: Sequence[float] | None = None,
    ) -> list[TrainingSequence]:
        """Sequences of the kept groups, with advantages among all `groups`.

        `version`: the policy version that is about to be trained. `kl`: sum over the tokens of each of these sequences,
        nats, deducted from the rewards with its coefficient.
        """
        rewards: list[Rewards] = [self._rewards(group) for group in groups]
        if kl is not None:
            values = iter(kl)
            for place in filtered.places:
                pairs = [(reward, next(values)) for reward in rewards[place]]
                rewards[place] = [None if r is None else r - self.algo.kl.coefficient * k for r, k in pairs]
        advantages = group_advantages(rewards, self.algo.advantage)
        return training_sequences(
            filtered.kept,
            [advantages[place] for place in filtered.places],
            mask_truncated=self.algo.mask_truncated,
            version=version,
        )

    def _rewards(self, group: ScoredGroup) -> list[float | None]:
        return compared_rewards(
            group, self.algo, weights=self.component_weights, completion_budget=self.completion_budget
        )
