"""Metrics over n sampled candidates of each question.

`right` holds one flag a candidate, in sampling order.
"""

from collections.abc import Sequence
from math import comb


def recall_at(right: Sequence[bool], k: int) -> bool:
    """Whether any of the first k candidates is right."""
    return any(right[:k])


def mean_at_n(right: Sequence[bool]) -> float:
    """Share of right candidates. Raises ValueError without candidates."""
    if not right:
        raise ValueError("mean@n needs at least one candidate")
    return sum(right) / len(right)


def pass_at(n: int, c: int, k: int) -> float:
    """Unbiased estimate, from n candidates with c right ones, that k fresh candidates hold a right one.

    1 - C(n-c, k) / C(n, k) (Chen et al., 2021, "Evaluating Large Language Models Trained on Code", equation 1).
    Raises ValueError unless 0 <= c <= n and 1 <= k <= n.
    """
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ValueError(f"pass@k needs 0 <= c <= n and 1 <= k <= n, got n={n}, c={c}, k={k}")
    return 1.0 - comb(n - c, k) / comb(n, k)
