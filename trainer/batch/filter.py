"""Leaves out the groups that teach nothing, before any forward pass, and says why.

Guarantees: every group is either kept or dropped with exactly one reason; order is preserved.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rollout.carriers import ScoredGroup

DropReason = Literal["unscorable", "unscorable_data", "unscorable_policy", "all_right", "all_wrong", "equal"]
"""unscorable and the next two: fewer than two completions have a reward, because the infrastructure lost at least one,
or else by the data's or the policy's doing. all_right, all_wrong, equal: every reward is the same,
because every completion is right, every one is wrong, or in spite of both kinds being present."""

UNSCORABLE: frozenset[DropReason] = frozenset(("unscorable", "unscorable_data", "unscorable_policy"))

Rewards = Sequence[float | None]
"""One for each completion of a group; None: unscorable."""

EQUAL_WITHIN = 1e-8
"""Rewards closer than this are the same reward."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DroppedGroup:
    group: ScoredGroup
    reason: DropReason


@dataclass(frozen=True, kw_only=True, slots=True)
class FilteredGroups:
    kept: tuple[ScoredGroup, ...]
    dropped: tuple[DroppedGroup, ...]
    places: tuple[int, ...]
    """Of the kept groups, in the list that was filtered."""


def filter_groups(
    groups: Sequence[ScoredGroup], rewards: Sequence[Rewards], *, drop_zero_variance: bool
) -> FilteredGroups:
    """Divide groups into those that are trained on and those that are not.

    `rewards`: what each group's completions are compared by (trainer/batch/rewards.py). A group with fewer than two
    scored completions has no baseline and is always dropped; groups of equal rewards only with `drop_zero_variance`
    (their advantages are 0 either way).
    """
    places: list[int] = []
    dropped: list[DroppedGroup] = []
    for place, (group, values) in enumerate(zip(groups, rewards, strict=True)):
        reason = drop_reason(group, values)
        if reason is None or (reason not in UNSCORABLE and not drop_zero_variance):
            places.append(place)
        else:
            dropped.append(DroppedGroup(group=group, reason=reason))
    return FilteredGroups(kept=tuple(groups[p] for p in places), dropped=tuple(dropped), places=tuple(places))


def drop_reason(group: ScoredGroup, rewards: Rewards) -> DropReason | None:
    """Why this group teaches nothing; None when its rewards differ."""
    values = [reward for reward in rewards if reward is not None]
    if len(values) < 2:
        return _unscorable(group)
    if max(values) - min(values) > EQUAL_WITHIN:
        return None
    scored = [result for result in group.results if result.status == "scored"]
    right = sum(result.correct for result in scored)
    if right == len(scored):
        return "all_right"
    return "all_wrong" if right == 0 else "equal"


def _unscorable(group: ScoredGroup) -> DropReason:
    if any(result.lost for result in group.results):
        return "unscorable"
    causes = {result.cause for result in group.results}
    return "unscorable_policy" if "policy" in causes else "unscorable_data" if "data" in causes else "unscorable"
