"""Queries that earn a right result without asking the database: what instances and rewards must not be fooled by.

Each holds the gold's rows on one instance as SQL literals of the same storage classes, so that executing it gives those
cells exactly. Guarantees: deterministic, at most `chars` characters. Whether a candidate is right elsewhere is for
execution to say.
"""

import math
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from rewards.carriers import Execution, Value

CheatKind = Literal["constant", "empty", "literal"]
EMPTY_QUERY = "SELECT NULL WHERE 0"
_STEP = 2**62
"""Largest power of two that is an SQLite integer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cheat:
    kind: CheatKind
    sql: str


def cheats(gold: Execution, *, chars: int) -> list[Cheat]:
    """The candidates that a gold's result on one instance invites.

    constant: its first row, once. empty: no row. literal: all its rows. What would be longer than `chars` is left
    out. Raises ValueError for an execution that failed.

    >>> [cheat.sql for cheat in cheats(Execution(status="ok", rows=((1, "a"), (2, None))), chars=100)]
    ["SELECT 1, 'a'", 'SELECT NULL WHERE 0', "VALUES (1, 'a'), (2, NULL)"]
    """
    if gold.status != "ok":
        raise ValueError(f"a failed execution has no rows to copy ({gold.error})")
    texts: dict[CheatKind, str] = {"constant": rows_as_sql(gold.rows[:1]), "empty": EMPTY_QUERY}
    # The shortest cell takes a character and a comma: what cannot fit need not be written first.
    if 2 * sum(map(len, gold.rows)) <= chars:
        texts["literal"] = rows_as_sql(gold.rows)
    return [Cheat(kind=kind, sql=text) for kind, text in texts.items() if len(text) <= chars]


def rows_as_sql(rows: Sequence[Sequence[Value]]) -> str:
    """A query without tables that returns these rows, in order."""
    if not rows:
        return EMPTY_QUERY
    lines = [", ".join(map(literal, row)) for row in rows]
    return f"SELECT {lines[0]}" if len(lines) == 1 else f"VALUES {', '.join(f'({line})' for line in lines)}"


def literal(value: Value) -> str:
    """An SQL expression with exactly this value and storage class, whatever the database's text encoding."""
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        return f"x'{value.hex()}'"
    if isinstance(value, str):
        # SQLite takes NUL for the end of the query.
        return "||char(0)||".join("'" + part.replace("'", "''") + "'" for part in value.split("\0"))
    return _real(value) if isinstance(value, float) else str(value)


def _real(value: float) -> str:
    """The number's digits where SQLite reads them back as the same number, which it does not always; else exact
    steps."""
    if math.isinf(value):
        return "9e999" if value > 0 else "-9e999"
    text = repr(value)
    if _memory().execute(f"SELECT {text}").fetchone() == (value,):
        return text
    mantissa, power = math.frexp(value)
    whole, power = int(mantissa * 2**53), power - 53
    operator = "*" if power > 0 else "/"
    steps = [str(_STEP)] * (abs(power) // 62) + [str(2 ** (abs(power) % 62))]
    return f"{whole}.0" + "".join(operator + step for step in steps)


@cache
def _memory() -> sqlite3.Connection:
    return sqlite3.connect(":memory:", check_same_thread=False)
