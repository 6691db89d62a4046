"""The voters: which of the executed candidates is the answer.

A voter is one function and one line in VOTERS; one with a rule of its own that takes a page has its own file
(`value_aware_conditioned`, `soft_vote`, `reranker`). Each returns the `index` of its candidate and raises NoCandidates
when there is none, or when an input that it cannot do without is missing.
"""

import math
from collections.abc import Sequence

from selection import soft_vote, value_aware_conditioned
from selection.candidate import (
    NOTHING,
    Candidate,
    Context,
    NoCandidates,
    Voter,
    best,
    executed,
    groups_by_result,
    largest,
    preference,
    telling,
)


def first(candidates: Sequence[Candidate], context: Context = NOTHING) -> int:
    """The first sampled candidate, whatever it does: what one sample gives."""
    if not candidates:
        raise NoCandidates("there is no candidate to choose from")
    return min(candidate.index for candidate in candidates)


def greedy(candidates: Sequence[Candidate], context: Context = NOTHING) -> int:
    """The greedily decoded candidate: what the policy answers without sampling. Needs `context.greedy`."""
    if context.greedy is None:
        raise NoCandidates("no candidate was decoded greedily (temperature 0): ask for one, or choose another voter")
    return context.greedy


def log_probability(candidates: Sequence[Candidate], context: Context = NOTHING) -> int:
    """The executed candidate with the highest sequence log-probability; any when nothing ran."""
    return best(executed(candidates) or candidates).index


def majority(candidates: Sequence[Candidate], context: Context = NOTHING) -> int:
    """Self-consistency by execution: the largest group of equal results, trivial or not; the preferred candidate when
    nothing ran."""
    groups = groups_by_result(candidates)
    return largest(groups).index if groups else best(candidates).index


def value_aware(candidates: Sequence[Candidate], context: Context = NOTHING) -> int:
    """Value-aware voting (VAV), the rule of FINER-SQL (arXiv 2605.03465).

    Candidates are grouped by result; failed and trivial groups (empty, or nothing but zeros and NULLs) are left out,
    and the largest group wins. If nothing is left, the largest group that ran wins; if nothing ran, the preferred
    candidate. Results are compared by full-length digests of typed values, and the order of the candidates does not
    matter.
    """
    groups = telling(groups_by_result(candidates))
    return largest(groups).index if groups else best(candidates).index


def confidence_weighted(candidates: Sequence[Candidate], context: Context = NOTHING) -> int:
    """The group of equal results with the largest sum of length-normalised probabilities; trivial groups are left out
    first, as in value-aware voting."""
    groups = telling(groups_by_result(candidates))
    if not groups:
        return best(candidates).index
    return min(groups, key=lambda group: (-math.fsum(weight(c) for c in group), preference(group[0])))[0].index


def weight(candidate: Candidate) -> float:
    """A vote's weight in (0, 1]: exp(logprob / characters of its SQL), the geometric mean probability per character.

    The sequence log-probability alone would let short queries win by length. A candidate without a log-probability
    weighs one vote, so that without any the rule is value-aware voting.
    """
    if candidate.logprob is None:
        return 1.0
    return math.exp(min(0.0, candidate.logprob) / max(1, len(candidate.sql)))


def oracle(candidates: Sequence[Candidate], context: Context = NOTHING) -> int:
    """The upper bound of every voter: a right candidate, or the majority's when none is right. Needs
    `context.correct`."""
    if context.correct is None:
        raise NoCandidates("the oracle needs to know which candidates are right (context.correct)")
    right = [candidate for candidate in candidates if candidate.index in context.correct]
    return best(right).index if right else majority(candidates, context)


VOTERS: dict[str, Voter] = {
    "value_aware": value_aware,
    "value_aware_conditioned": value_aware_conditioned.select,
    "majority": majority,
    "first": first,
    "greedy": greedy,
    "oracle": oracle,
    "soft_vote": soft_vote.select,
    "log_probability": log_probability,
    "confidence_weighted": confidence_weighted,
}
NEEDS_LOGPROBS = frozenset(("log_probability", "confidence_weighted"))
"""Voters that only make sense where candidates come with log-probabilities."""
