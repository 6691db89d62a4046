"""Majority voting (self-consistency by execution): the largest group of equal results, trivial or not."""

from collections.abc import Sequence

from selection.candidate import NOTHING, Candidate, Context, best, groups_by_result, largest


def select(candidates: Sequence[Candidate], context: Context = NOTHING) -> int:
    """Index of the chosen candidate; the preferred one when nothing ran. Raises NoCandidates when there is none."""
    groups = groups_by_result(candidates)
    return largest(groups).index if groups else best(candidates).index
