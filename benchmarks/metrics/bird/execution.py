"""BIRD execution accuracy (EX).

Source: `calculate_ex` in evaluation_ex.py.
"""

from rewards.carriers import Execution
from rewards.sql.denotation import equal


def execution_match(gold: Execution, predicted: Execution) -> bool:
    """Equal as sets of rows: duplicates and row order do not count, column order does; 1 equals 1.0, no tolerance.

    Two empty results are equal at any width; a failed execution equals nothing.
    """
    return equal(gold, predicted, policy="bird", ordered=False)
