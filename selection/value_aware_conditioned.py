"""Value-aware voting that knows when nothing is an answer.

Value-aware voting never lets an empty or all-zero result win while anything else ran; that is wrong for "how many
concerts had no visitors", where 29 votes for 0 would lose to one stray value. Here such groups compete with their
full votes where the question asks for a count or speaks of absence, and with discounted votes elsewhere. The discount
was chosen with data; docs/benchmarks.md shows how.
"""

import re
from collections.abc import Sequence

from selection.candidate import NOTHING, Candidate, Context, best, groups_by_result, preference

DISCOUNT = 0.25
"""Weight of a vote for a trivial result where the question gives no reason for one."""

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
    factor = 1.0 if may_be_nothing(context.question) else DISCOUNT

    def votes(group: Sequence[Candidate]) -> float:
        return len(group) * (factor if group[0].trivial else 1.0)

    return min(groups, key=lambda group: (-votes(group), preference(group[0])))[0].index
