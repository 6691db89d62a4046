"""Minimum Bayes risk under a soft similarity of results: the answer that agrees most with all the others, near misses
included.

The similarity of two results is the mean of two Dice coefficients over bags, one of whole rows and one of single
cells, so that a result with one column too many still supports its neighbour. Each group of equal results counts with
its number of votes; trivial groups (empty, zeros and NULLs) are left out first, as in value-aware voting.
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from itertools import islice

from selection.candidate import (
    NOTHING,
    Candidate,
    Context,
    NoCandidates,
    Rows,
    best,
    groups_by_result,
    preference,
    telling,
)

ROWS_COMPARED = 2000
"""Rows of each result that enter the similarity; more would cost time and not change a vote."""

Bags = tuple[Counter[Hashable], Counter[Hashable]]


def bags(rows: Rows) -> Bags:
    """Bags of rows and of cells; cells carry their storage class, except that numbers compare as numbers."""
    kept = list(islice(rows, ROWS_COMPARED))
    return Counter(kept), Counter(cell for row in kept for cell in row)


def dice(left: Counter[Hashable], right: Counter[Hashable]) -> float:
    """2 |left & right| / (|left| + |right|), in [0, 1]; 1 for two empty bags."""
    total = left.total() + right.total()
    if not total:
        return 1.0
    if len(left) > len(right):
        left, right = right, left
    return 2 * sum(min(count, right[key]) for key, count in left.items()) / total


def similarity(left: Bags, right: Bags) -> float:
    """Soft similarity of two results, in [0, 1]; 1 exactly for equal bags of rows."""
    return (dice(left[0], right[0]) + dice(left[1], right[1])) / 2


def select(candidates: Sequence[Candidate], context: Context = NOTHING) -> int:
    """Index of the chosen candidate. Raises NoCandidates without candidates, or when an executed one has no rows in
    the context.
    """
    groups = telling(groups_by_result(candidates))
    if not groups:
        return best(candidates).index
    try:
        results = [bags(context.rows[group[0].index]) for group in groups]
    except KeyError as error:
        raise NoCandidates(f"soft_vote needs the result rows of candidate {error} (context.rows)") from error
    support = [
        sum(len(other) * similarity(results[i], results[j]) for j, other in enumerate(groups))
        for i in range(len(groups))
    ]
    ranked = zip(groups, support, strict=True)
    chosen, _ = min(ranked, key=lambda pair: (-round(pair[1], 12), preference(pair[0][0])))
    return chosen[0].index
