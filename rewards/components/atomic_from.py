"""FROM clauses: their sources in order, and whether the order means anything.

Inner joins commute. A LEFT JOIN keeps its place among LEFT JOINs, and inner joins may move past it, because it keeps
every row of what stands before it. RIGHT, FULL, NATURAL and USING fix the order of all.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations, product
from math import factorial, prod

from sqlglot import exp

from rewards.sql.parse import SqlSyntaxError

MAX_NUMBERINGS = 6
"""Numberings tried for sources that share a label; beyond it they are numbered as they stand."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One source as it is written."""

    item: exp.Expr
    join: exp.Join | None
    """The join that brings it; None for the first."""

    @property
    def inner(self) -> bool:
        return self.join is None or _is_inner(self.join)


def from_entries(select: exp.Expr) -> tuple[list[Entry], bool]:
    """The sources of a SELECT, those inside parentheses too, and whether they cannot change places.

    Raises SqlSyntaxError for parentheses that group sources in a way that a flat list cannot show.
    """
    clause = select.args.get("from_")
    waiting = [] if clause is None else [Entry(clause.this, None), *_joined(select)]
    entries: list[Entry] = []
    grouped = False
    while waiting:
        entry = waiting.pop(0)
        item = entry.item
        waiting[0:0] = _joined(item)
        if isinstance(item, exp.Subquery) and isinstance(item.this, exp.Table) and not item.alias:
            if not entry.inner:
                raise SqlSyntaxError("a group of tables on the right of an outer join")
            grouped = True
            waiting.insert(0, Entry(item.this, entry.join))
        else:
            entries.append(entry)
    fixed = any(not entry.inner and not _is_left(entry.join) for entry in entries if entry.join is not None)
    if fixed and grouped:
        raise SqlSyntaxError("a group of tables beside joins that cannot change places")
    return entries, fixed


def _joined(node: exp.Expr) -> list[Entry]:
    return [Entry(join.this, join) for join in node.args.get("joins") or ()]


def _is_inner(join: exp.Join) -> bool:
    return _plain_join(join) and not join.side and join.kind in ("", "INNER", "CROSS")


def _is_left(join: exp.Join) -> bool:
    return _plain_join(join) and join.side == "LEFT" and join.kind in ("", "OUTER")


def _plain_join(join: exp.Join) -> bool:
    return not join.method and not join.args.get("using")


def numberings(labels: list[str]) -> Iterator[list[str]]:
    """All ways to number the entries that share a label; one way only where there are too many."""
    shared: dict[str, list[int]] = {}
    for index, label in enumerate(labels):
        shared.setdefault(label, []).append(index)
    groups = [indices for indices in shared.values() if len(indices) > 1]
    ways = (permutations(range(len(indices))) for indices in groups)
    few = prod(factorial(len(indices)) for indices in groups) <= MAX_NUMBERINGS
    for choice in product(*ways) if few else [tuple(tuple(range(len(indices))) for indices in groups)]:
        numbered = list(labels)
        for indices, numbers in zip(groups, choice, strict=True):
            for index, number in zip(indices, numbers, strict=True):
                numbered[index] = f"{labels[index]}#{number}"
        yield numbered
