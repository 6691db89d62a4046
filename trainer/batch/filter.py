"""Leaves out the groups that teach nothing, before any forward pass, and says why.

Guarantees: every group is either kept or dropped with exactly one reason; order is preserved.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from trainer.carriers import ScoredGroup

DropReason = Literal["unscorable", "all_right", "all_wrong", "equal"]
"""unscorable: fewer than two completions have a reward. all_right, all_wrong, equal: every reward is the same,
because every completion is right, every one is wrong, or in spite of both kinds being present."""

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


def filter_groups(groups: Sequence[ScoredGroup], *, drop_zero_variance: bool) -> FilteredGroups:
    """Divide groups into those that are trained on and those that are not.

    A group with fewer than two scored completions has no baseline and is always dropped; groups of equal rewards
    only with `drop_zero_variance` (their advantages are 0 either way).
    """
    kept: list[ScoredGroup] = []
    dropped: list[DroppedGroup] = []
    for group in groups:
        reason = drop_reason(group)
        if reason is None or (reason != "unscorable" and not drop_zero_variance):
            kept.append(group)
        else:
            dropped.append(DroppedGroup(group=group, reason=reason))
    return FilteredGroups(kept=tuple(kept), dropped=tuple(dropped))


def drop_reason(group: ScoredGroup) -> DropReason | None:
    """Why this group teaches nothing; None when its rewards differ."""
    scored = [r for r in group.results if r.status == "scored" and r.total is not None]
    totals = [r.total for r in scored if r.total is not None]
    if len(totals) < 2:
        return "unscorable"
    if max(totals) - min(totals) > EQUAL_WITHIN:
        return None
    right = sum(r.correct for r in scored)
    if right == len(scored):
        return "all_right"
    return "all_wrong" if right == 0 else "equal"
