"""The likeliest candidate that ran."""

from collections.abc import Sequence

from selection.candidate import NOTHING, Candidate, Context, best, executed


def select(candidates: Sequence[Candidate], context: Context = NOTHING) -> int:
    """Index of the executed candidate with the highest sequence log-probability; of any when nothing ran."""
    return best(executed(candidates) or candidates).index
