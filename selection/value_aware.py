"""Value-aware voting (VAV), the rule of FINER-SQL (arXiv 2605.03465).

Candidates are grouped by result; failed and trivial groups (empty, or nothing but zeros and NULLs) are left out, and
the largest group wins. If nothing is left, the largest group that ran wins; if nothing ran, the preferred candidate.
Results are compared by full-length digests of typed values, and the order of the candidates does not matter.
"""

from collections.abc import Sequence

from selection.candidate import NOTHING, Candidate, Context, best, groups_by_result, largest


def select(candidates: Sequence[Candidate], context: Context = NOTHING) -> int:
    """Index of the chosen candidate. Raises NoCandidates when there is none."""
    groups = groups_by_result(candidates)
    if not groups:
        return best(candidates).index
    telling = [group for group in groups if not group[0].trivial]
    return largest(telling or groups).index
