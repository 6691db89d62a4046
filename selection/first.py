"""The first sampled candidate, whatever it does: what one sample gives."""

from collections.abc import Sequence

from selection.candidate import NOTHING, Candidate, Context, NoCandidates


def select(candidates: Sequence[Candidate], context: Context = NOTHING) -> int:
    """The smallest index. Raises NoCandidates when there is none."""
    if not candidates:
        raise NoCandidates("there is no candidate to choose from")
    return min(candidate.index for candidate in candidates)
