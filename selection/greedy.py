"""The greedily decoded candidate: what the policy answers without sampling."""

from collections.abc import Sequence

from selection.candidate import NOTHING, Candidate, Context, NoCandidates


def select(candidates: Sequence[Candidate], context: Context = NOTHING) -> int:
    """The context's greedy index. Raises NoCandidates when the source decoded none."""
    if context.greedy is None:
        raise NoCandidates("no candidate was decoded greedily (temperature 0): ask for one, or choose another voter")
    return context.greedy
