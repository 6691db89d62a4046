"""What Spider's metrics see of a query: a small tree that forgets most of SQL on purpose.

Two trees are compared with `==`. A `Query` in a FROM clause or in a condition is a value like any other.
"""

from dataclasses import dataclass
from typing import NamedTuple


class Refused(Exception):
    """The official parser does not accept this text; a prediction then scores 0 in exact set match."""


class Column(NamedTuple):
    """A column, perhaps inside an aggregate."""

    aggregate: str
    """none, max, min, count, sum or avg."""
    name: str
    """`table.column` in lower case, or `*`."""
    distinct: bool | None


class Expression(NamedTuple):
    """A column, or an arithmetic operation on two."""

    operator: str
    """none, -, +, * or /."""
    left: Column
    right: Column | None


class Selected(NamedTuple):
    """One select item; its aggregate stands outside the expression."""

    aggregate: str
    expression: Expression


@dataclass(frozen=True, slots=True)
class Condition:
    """One comparison of WHERE, HAVING or ON."""

    negated: bool
    operator: str
    left: Expression
    value: "Operand"
    upper: "Operand"
    """Second value of BETWEEN."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """One SELECT with what follows it. Condition lists alternate conditions with "and" / "or"."""

    distinct: bool | None
    select: tuple[Selected, ...]
    tables: tuple["str | Query", ...]
    joins: tuple["Condition | str", ...]
    where: tuple["Condition | str", ...]
    group_by: tuple[Column, ...]
    having: tuple["Condition | str", ...]
    order_by: tuple[Expression, ...]
    direction: str
    """asc or desc, the last one named; asc when there is no ORDER BY."""
    limit: bool
    """Whether there is a LIMIT; its number does not count."""
    combined: tuple[str, "Query"] | None
    """(intersect | union | except, the right-hand query)."""


Operand = float | str | Column | Query | None
Conditions = tuple[Condition | str, ...]


def comparisons(conditions: Conditions) -> tuple[Condition, ...]:
    """Every second entry, which is where conditions stand."""
    return tuple(entry for entry in conditions[::2] if isinstance(entry, Condition))


def connectives(conditions: Conditions) -> tuple[Condition | str, ...]:
    """What stands between the conditions: "and" and "or"."""
    return conditions[1::2]
