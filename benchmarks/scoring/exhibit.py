"""What the report shows of one question: both results, cut to what a reader can take in."""

from typing import Any

from rewards.carriers import Execution, Value

ROWS = 12
COLUMNS = 12
CHARACTERS = 80


def table(execution: Execution) -> dict[str, Any]:
    """JSON-ready: columns, the first rows as text (None for NULL), the full size, or the error."""
    if execution.status != "ok":
        return {"error": execution.error or execution.error_kind or "did not run"}
    return {
        "columns": [str(name)[:CHARACTERS] for name in execution.columns[:COLUMNS]],
        "rows": [[_cell(value) for value in row[:COLUMNS]] for row in execution.rows[:ROWS]],
        "total_rows": len(execution.rows),
        "total_columns": len(execution.columns),
    }


def _cell(value: Value) -> str | None:
    if value is None:
        return None
    text = f"x'{value[:CHARACTERS].hex()}'" if isinstance(value, bytes) else str(value)
    return text if len(text) <= CHARACTERS else text[:CHARACTERS] + "…"
