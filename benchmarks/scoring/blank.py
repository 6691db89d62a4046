"""Text without a statement, as the official scripts meet it: Python's sqlite3 runs it and yields nothing.

An empty prediction, or one that holds only comments, therefore equals an empty gold result in execution match and EX.
That is plainly a bug: the corrected columns do not know it.
"""

from benchmarks.metrics.spider.text import PIECES
from rewards.carriers import Execution

NOTHING = Execution(status="ok")


def as_official(sql: str, execution: Execution) -> Execution:
    """What the official script sees of a query's execution."""
    return NOTHING if execution.status == "error" and _is_blank(sql) else execution


def _is_blank(sql: str) -> bool:
    """White space and comments, around one semicolon at the most."""
    pieces = (piece for piece in PIECES.findall(sql) if not piece.isspace() and not piece.startswith(("--", "/*")))
    return list(pieces) in ([], [";"])
