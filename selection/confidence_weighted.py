"""Votes weighted by confidence: the group of equal results with the largest sum of length-normalised probabilities
wins.

A candidate's weight is exp(logprob / characters of its SQL): the geometric mean probability per character. The
sequence log-probability alone would let short queries win by length. Candidates without a log-probability weigh one
vote, so that without any the rule is value-aware voting. Trivial groups are left out first, as there.
"""

import math
from collections.abc import Sequence

from selection.candidate import NOTHING, Candidate, Context, best, groups_by_result, preference


def weight(candidate: Candidate) -> float:
    """A vote's weight in (0, 1]."""
    if candidate.logprob is None:
        return 1.0
    return math.exp(min(0.0, candidate.logprob) / max(1, len(candidate.sql)))


def select(candidates: Sequence[Candidate], context: Context = NOTHING) -> int:
    """Index of the chosen candidate. Raises NoCandidates when there is none."""
    groups = groups_by_result(candidates)
    if not groups:
        return best(candidates).index
    telling = [group for group in groups if not group[0].trivial] or groups
    chosen = min(telling, key=lambda group: (-math.fsum(weight(c) for c in group), preference(group[0])))
    return chosen[0].index
