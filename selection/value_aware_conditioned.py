"""Value-aware voting that knows when nothing is an answer.

Value-aware voting never lets an empty or all-zero result win while anything else ran; that is wrong for "how many
concerts had no visitors", where 29 votes for 0 would lose to one stray value. Here each vote for such a result weighs
less than one, and least where the question neither asks for a number nor speaks of absence. The weights are likelihood
ratios of right and wrong answers of public models; docs/benchmarks.md has the counts.
"""

import re
from collections.abc import Sequence

from selection.candidate import NOTHING, Candidate, Context, best, groups_by_result, preference

ASKED = 0.1
"""Weight of a vote for nothing where nothing can be the answer: ten such votes balance one for a value."""
UNASKED = 0.02
"""Weight elsewhere: up to fifty such votes lose to one for a value."""

ASKS = re.compile(
    r"\bhow (?:many|much)\b|\bnumbers? of\b|\bcount\b|\btotal\b|\bpercent(?:age)?\b"
    r"|\bproportion\b|\bratio\b|\bdifference\b"
    r"|\bno\b|\bnot\b|\bnone\b|\bnever\b|\bnor\b|\bneither\b|\bwithout\b|\bnobody\b|\bmissing\b|\bunknown\b|\bzero\b"
    r"|\b(?:is|are|was|were|do|does|did|has|have) there\b|n't\b",
    re.IGNORECASE,
)


def may_be_nothing(question: str) -> bool:
    """The question asks for a number, or for what is absent: zero or no rows can be its answer."""
    return ASKS.search(question) is not None


def select(candidates: Sequence[Candidate], context: Context = NOTHING) -> int:
    """Index of the chosen candidate. Raises NoCandidates when there is none."""
    groups = groups_by_result(candidates)
    if not groups:
        return best(candidates).index
    factor = ASKED if may_be_nothing(context.question) else UNASKED

    def votes(group: Sequence[Candidate]) -> float:
        return len(group) * (factor if group[0].trivial else 1.0)

    return min(groups, key=lambda group: (-votes(group), preference(group[0])))[0].index
