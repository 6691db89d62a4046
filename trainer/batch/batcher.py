"""What a step's scored groups become for the learner, in three moves: filter, advantages, sequences.

Pure: holds configuration only. Who needs the reference policy for a KL term inside the reward asks it before the first
move, for all groups (trainer/pipeline/loop.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from conf.schema.algo import AlgoConfig
from rollout.carriers import ScoredGroup
from trainer.batch.advantage import group_advantages
from trainer.batch.filter import FilteredGroups, Rewards, drop_reason, filter_groups
from trainer.batch.rewards import compared_rewards
from trainer.batch.sequences import training_sequences
from trainer.carriers import TrainingSequence

KlSums = Sequence[Sequence[float]]
"""One for each completion of each group, nats."""


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
        """The reward has a KL term: `filter` and `sequences` want its values."""
        return self.algo.kl.place == "reward" and self.algo.kl.coefficient > 0

    def teaches(self, group: ScoredGroup) -> bool:
        """Whether the group's completions differ in what they are compared by."""
        return drop_reason(group, self._rewards(group)) is None

    def filter(self, groups: Sequence[ScoredGroup], kl: KlSums | None = None) -> FilteredGroups:
        """`kl`: as for `sequences`. Where groups are resampled, those that were replaced are the ones dropped, and
        nothing was known of their divergence then."""
        rewards = self._compared(groups, None if self.algo.resample else kl)
        return filter_groups(groups, rewards, drop_zero_variance=self.algo.drops_equal_groups)

    def all_sequences(self, groups: Sequence[ScoredGroup]) -> list[TrainingSequence]:
        """Every completion of every group, in order, for the reference policy to look at."""
        nothing = [[0.0] * len(group.results) for group in groups]
        return training_sequences(groups, nothing, mask_truncated=False, version=0)

    def sequences(
        self,
        groups: Sequence[ScoredGroup],
        filtered: FilteredGroups,
        *,
        version: int,
        kl: KlSums | None = None,
    ) -> list[TrainingSequence]:
        """Sequences of the kept groups, with advantages among all `groups`.

        `version`: the policy version that is about to be trained. `kl`: of each completion of each of `groups`, the
        divergence's sum over its tokens, nats, deducted from the rewards with its coefficient.
        """
        advantages = group_advantages(self._compared(groups, kl), self.algo.advantage)
        return training_sequences(
            filtered.kept,
            [advantages[place] for place in filtered.places],
            mask_truncated=self.algo.mask_truncated,
            version=version,
        )

    def _compared(self, groups: Sequence[ScoredGroup], kl: KlSums | None) -> list[Rewards]:
        rewards: list[Rewards] = [self._rewards(group) for group in groups]
        if kl is None:
            return rewards
        coefficient = self.algo.kl.coefficient
        return [
            [None if r is None else r - coefficient * k for r, k in zip(of_group, sums, strict=True)]
            for of_group, sums in zip(rewards, kl, strict=True)
        ]

    def _rewards(self, group: ScoredGroup) -> list[float | None]:
        return compared_rewards(
            group, self.algo, weights=self.component_weights, completion_budget=self.completion_budget
        )
