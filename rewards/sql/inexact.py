"""Sums of reals, whose last bits depend on the order in which the numbers are added.

SUM, AVG and TOTAL give another last bit when rows come in another order or are added in groups first, so two right
queries may differ there. Where such an aggregate stands in a query, or in a view that it reads, its results are
compared with a tolerance; everything else stays exact.

`settled` is how: over all tables that are compared together, numbers that are near each other become one number, and
the exact comparison decides. Near each other are the connected components of `near`, so that neither the order of rows
nor that of tables counts, and a group of candidates falls into the same classes however they are listed.
"""

import math
import sqlite3
from collections.abc import Collection, Sequence
from contextlib import closing

from rewards.carriers import Value
from rewards.sql.cache import BoundedCache
from rewards.sql.content import content_key
from rewards.sql.parse import Token, lex
from rewards.sql.schema import connect_readonly

Row = tuple[Value, ...]
RELATIVE = 1e-9
"""Far above the rounding of a sum of a million numbers, far below what two different questions differ by."""
ABSOLUTE = 1e-9
"""Sums that cancel leave the rounding of their terms where zero should be; no relative bound holds for them."""
NUMBERS = frozenset((int, float))
AGGREGATES = frozenset(("sum", "avg", "total"))

_views: BoundedCache[str, frozenset[str]] = BoundedCache(1000)
"""By database content."""


def near(left: float, right: float) -> bool:
    """Whether two numbers may be one sum added in two orders; at least one of them has to be a float."""
    return left == right or math.isclose(left, right, rel_tol=RELATIVE, abs_tol=ABSOLUTE)


def sums_inexactly(sql: str, views: Collection[str] = ()) -> bool:
    """Whether a query holds such an aggregate, or the name of one of `views`; True for text that is no SQL."""
    tokens = lex(sql)
    return True if tokens is None else _names(tokens, views)


def inexact_views(database: str) -> frozenset[str]:
    """Lower-case names of the views that hold such an aggregate, themselves or through another view.

    Raises DatabaseUnreadable.
    """
    key = content_key(database)
    known = _views.get(key)
    if known is None:
        known = _read_views(database)
        _views.put(key, known)
    return known


def settled(tables: Sequence[Sequence[Row]], inexact: Sequence[bool]) -> list[Sequence[Row]]:
    """The tables, with numbers that are near each other replaced by the smallest of them.

    Two numbers are joined where at least one is a float of a table that is `inexact`: integers, and the floats of exact
    tables, stay different from each other unless such a float lies near both.
    """
    columns = [list(zip(*rows, strict=True)) for rows in tables]
    cells = [set().union(*(column for column in table if NUMBERS & set(map(type, column)))) for table in columns]
    summed = set().union(*(own for own, on in zip(cells, inexact, strict=True) if on))
    soft = {value for value in summed if type(value) is float}
    if not soft:
        return list(tables)
    numbers = {value for value in summed.union(*cells) if type(value) is float or type(value) is int}
    names = _joined(sorted(numbers), soft)
    if not names:
        return list(tables)
    return [
        rows if names.keys().isdisjoint(own) else tuple(zip(*(_renamed(c, names) for c in table), strict=True))
        for rows, table, own in zip(tables, columns, cells, strict=True)
    ]


def _joined(values: Sequence[float], soft: Collection[float]) -> dict[Value, Value]:
    """Value -> smallest of its component, for the members of components of two or more; `values` are sorted.

    What is near a soft value is a run of the sorted values, so two neighbours are joined exactly where the last soft
    value before them, or the first behind them, is near both.
    """
    following: list[float | None] = [None] * len(values)
    coming: float | None = None
    for i in range(len(values) - 1, -1, -1):
        coming = values[i] if values[i] in soft else coming
        following[i] = coming
    names: dict[Value, Value] = {}
    last: float | None = None
    first = values[0]
    for i in range(1, len(values)):
        last = values[i - 1] if values[i - 1] in soft else last
        behind = following[i]
        if (last is not None and near(last, values[i])) or (behind is not None and near(values[i - 1], behind)):
            names[first] = names[values[i]] = first
        else:
            first = values[i]
    return names


def _renamed(column: Sequence[Value], names: dict[Value, Value]) -> Sequence[Value]:
    return column if names.keys().isdisjoint(column) else list(map(names.get, column, column))


def _names(tokens: Sequence[Token], views: Collection[str]) -> bool:
    for i, token in enumerate(tokens):
        if token.kind == "quoted":
            word = token.text[1:-1].replace(token.text[-1] * 2, token.text[-1]).lower()
        elif token.kind == "word":
            word = token.text.lower()
        else:
            continue
        if word in views or (word in AGGREGATES and i + 1 < len(tokens) and tokens[i + 1].text == "("):
            return True
    return False


def _read_views(database: str) -> frozenset[str]:
    with closing(connect_readonly(database)) as connection:
        try:
            found = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'view'").fetchall()
        except sqlite3.Error:  # what it cannot read, no query can
            return frozenset()
    texts = {name.lower(): sql or "" for name, sql in found}
    names: frozenset[str] = frozenset()
    while True:
        more = frozenset(name for name, sql in texts.items() if sums_inexactly(_body(sql), names))
        if more == names:
            return names
        names = more


def _body(sql: str) -> str:
    """A view's query: its own name does not count."""
    tokens = lex(sql) or []
    start = next((i + 1 for i, token in enumerate(tokens) if token.text.lower() == "as"), 0)
    return " ".join(token.text for token in tokens[start:])
