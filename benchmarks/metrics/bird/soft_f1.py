"""BIRD Soft-F1, as the official script computes it, and without its dependence on row order.

Both take results without duplicate rows. A pair of rows earns, as shares of the gold row's width, the predicted cells
found in the gold row (true positives), the predicted cells not found there (false positives) and the gold cells not
found in the predicted row (false negatives); a row without partner counts 1. Source: `calculate_row_match`,
`calculate_f1_score` in evaluation_f1.py.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from rewards.carriers import Value

Row = tuple[Value, ...]
Rows = Sequence[Row]

SEARCHED_PAIRS = 250_000
"""Unequal rows are paired by content up to this many combinations, and in sorted order beyond."""


class Shares(NamedTuple):
    """What one pair of rows earns, in shares of the gold row's width."""

    found: float
    surplus: float
    missing: float


def soft_f1(gold: Rows, predicted: Rows) -> float:
    """The official score in [0, 1]: the i-th distinct predicted row is compared with the i-th distinct gold row.

    The same rows in another order can therefore score 0; see `soft_f1_unordered`.
    """
    if not gold and not predicted:
        return 1.0
    left, right = list(dict.fromkeys(gold)), list(dict.fromkeys(predicted))
    return _f1([row_shares(g, p) for g, p in zip(left, right, strict=False)], len(left), len(right))


def soft_f1_unordered(gold: Rows, predicted: Rows) -> float:
    """Soft-F1 with rows paired by content: equal rows first, then those that share most cells."""
    if not gold and not predicted:
        return 1.0
    left, right = dict.fromkeys(gold), dict.fromkeys(predicted)
    equal = [row for row in left if row in right]
    rest_left = [row for row in left if row not in right]
    rest_right = [row for row in right if row not in left]
    pairs = [row_shares(row, row) for row in equal] + _paired(rest_left, rest_right)
    return _f1(pairs, len(left), len(right))


def row_shares(gold: Row, predicted: Row) -> Shares:
    """Membership of cells, position and number ignored."""
    width = len(gold)
    found = sum(cell in gold for cell in predicted)
    missing = sum(cell not in predicted for cell in gold)
    return Shares(found / width, (len(predicted) - found) / width, missing / width)


def _f1(pairs: Sequence[Shares], gold_rows: int, predicted_rows: int) -> float:
    found = sum(pair.found for pair in pairs)
    surplus = sum(pair.surplus for pair in pairs) + max(0, predicted_rows - gold_rows)
    missing = sum(pair.missing for pair in pairs) + max(0, gold_rows - predicted_rows)
    precision = found / (found + surplus) if found + surplus > 0 else 0.0
    recall = found / (found + missing) if found + missing > 0 else 0.0
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


def _paired(gold: Sequence[Row], predicted: Sequence[Row]) -> list[Shares]:
    """min(len) pairs: those with most found cells first, ties by content, so that the order of rows does not matter."""
    gold, predicted = sorted(gold, key=repr), sorted(predicted, key=repr)
    pairs = _overlapping(gold, predicted) if len(gold) * len(predicted) <= SEARCHED_PAIRS else []
    free_gold, free_predicted = dict.fromkeys(range(len(gold))), dict.fromkeys(range(len(predicted)))
    chosen = []
    for _, i, j in pairs:
        if i in free_gold and j in free_predicted:
            del free_gold[i], free_predicted[j]
            chosen.append((i, j))
    chosen += zip(free_gold, free_predicted, strict=False)
    return [row_shares(gold[i], predicted[j]) for i, j in chosen]


def _overlapping(gold: Sequence[Row], predicted: Sequence[Row]) -> list[tuple[int, int, int]]:
    """(-found cells, gold position, predicted position) of every pair that shares a cell, best first."""
    holders: dict[Value, list[int]] = {}
    for j, row in enumerate(predicted):
        for cell in row:
            holders.setdefault(cell, []).append(j)
    pairs = []
    for i, row in enumerate(gold):
        found = Counter(j for cell in dict.fromkeys(row) for j in holders.get(cell, ()))
        pairs += [(-count, i, j) for j, count in found.items()]
    return sorted(pairs)
