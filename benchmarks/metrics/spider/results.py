"""Spider execution match of two results: bags of rows (or lists, where order matters) up to one permutation of columns.

Source: `result_eq` in exec_eval.py (Zhong et al., 2020, "Semantic Evaluation for Text-to-SQL with Distilled Test
Suites").
"""

from rewards.carriers import Execution, Value
from rewards.sql.denotation import equal


def results_match(gold: Execution, predicted: Execution, *, ordered: bool) -> bool:
    """The official verdict on one database instance. Two empty results match at any width; a failed one never does.

    Before it looks for a permutation the script sorts the cells of each row by their text and type. Rows in which equal
    numbers are written differently (1 and 1.0) may be sorted differently, and are then unequal.
    """
    if not equal(gold, predicted, policy="spider", ordered=ordered):
        return False
    if not gold.rows or len(gold.rows[0]) == 1 or repr(gold.rows) == repr(predicted.rows):
        return True
    left, right = [_sorted_cells(row) for row in gold.rows], [_sorted_cells(row) for row in predicted.rows]
    return left == right if ordered else set(left) == set(right)


def results_match_corrected(gold: Execution, predicted: Execution, *, ordered: bool) -> bool:
    """The same rule without the sorting of cells, so that 1 equals 1.0 in every row."""
    return equal(gold, predicted, policy="spider", ordered=ordered)


def _sorted_cells(row: tuple[Value, ...]) -> tuple[Value, ...]:
    return tuple(sorted(row, key=lambda cell: str(cell) + str(type(cell))))
