"""The upper bound of every voter: a right candidate where there is one."""

from collections.abc import Sequence

from selection import majority
from selection.candidate import NOTHING, Candidate, Context, NoCandidates, best


def select(candidates: Sequence[Candidate], context: Context = NOTHING) -> int:
    """A right candidate, or the majority's when none is right. Raises NoCandidates without `context.correct`."""
    if context.correct is None:
        raise NoCandidates("the oracle needs to know which candidates are right (context.correct)")
    right = [candidate for candidate in candidates if candidate.index in context.correct]
    return best(right).index if right else majority.select(candidates, context)
