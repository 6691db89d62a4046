"""Ties of a sorted result: rows that its ORDER BY does not tell apart.

SQL leaves open in which order they come, and which of them a LIMIT lets through. `tie_query` asks SQLite itself, for
the rows of a query whose top level has an ORDER BY, which of them tie: it ranks them by the same sort keys, so that
collations, NULLs and directions count as in the query. `find_ties` puts the gold's own rows into the groups found, and
`Ties.allow` says whether another result is one that the query could have given.

Ties inside the query (a sorted LIMIT in a subquery, a window) are the business of order.py.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sqlglot import exp

from conf.schema.data import Denotation
from rewards.carriers import Value
from rewards.sql.cache import rows_bytes
from rewards.sql.denotation import found_within
from rewards.sql.inexact import settled
from rewards.sql.parse import ParseFailure, parse_query

Row = tuple[Value, ...]
SPARE_ROWS = 5_000
"""Rows behind a LIMIT that are looked at for ties with its last row."""
ROWS = "quorum_rows"
AGGREGATES = frozenset("count sum avg total min max group_concat string_agg json_group_array json_group_object".split())
GROUP_BYTES = 40
"""Of the number of a row's group."""
UNSTEADY = AGGREGATES | {"random", "randomblob"}
"""Functions that are more than the values of their arguments."""
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class KeysUnknown(Exception):
    """The sort keys cannot be told from the text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TieQuery:
    """Gives the rows of a query from its first, without OFFSET, each with its sort keys and the rank of these."""

    texts: tuple[str, ...]
    """Readings of the query, the likelier first; the first that SQLite accepts holds."""
    width: int
    """Columns of the query itself, which come first."""
    offset: int
    fetched: int | None
    """Rows asked for; None: all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ties:
    """The groups of rows with equal sort keys in one gold result."""

    groups: tuple[int, ...]
    """Number of each gold row's group, from 0, rising."""
    spare: tuple[Row, ...] = ()
    """Rows that OFFSET or LIMIT left out although they tie with rows of the result."""
    spare_groups: tuple[int, ...] = ()

    def allow(self, gold: Sequence[Row], predicted: Sequence[Row], *, policy: Denotation, inexact: bool) -> bool:
        """Whether the predicted rows are a result that the gold query, whose rows are `gold`, may give.

        Under `spider` group by group a choice of the rows that tie, up to one permutation of columns; under `bird` the
        set of a choice.
        """
        if not gold or not predicted or len(gold[0]) != len(predicted[0]):
            return not gold and not predicted
        pool: Sequence[Row] = (*gold, *self.spare)
        if inexact:
            pool, predicted = settled((pool, predicted), (True, True))
        if policy == "bird":
            return self._is_choice(pool, set(predicted))
        groups = (*self.groups, *self.spare_groups)
        return len(predicted) == len(gold) and found_within(pool, groups, predicted, self.groups)

    def _is_choice(self, pool: Sequence[Row], predicted: set[Row]) -> bool:
        """Whether a choice from the groups at the edges, with all rows between them, has this set of rows."""
        groups = (*self.groups, *self.spare_groups)
        cut = set(self.spare_groups)
        edges: dict[int, list[Row]] = {group: [] for group in cut}
        inner: set[Row] = set()
        for row, group in zip(pool, groups, strict=True):
            if group in cut:
                edges[group].append(row)
            else:
                inner.add(row)
        if not inner <= predicted:
            return False
        chosen = Counter(group for group in self.groups if group in cut)
        missing = predicted - inner
        within = {group: missing.intersection(rows) for group, rows in edges.items()}
        everywhere = set[Row]().union(*within.values())
        if missing != everywhere or len(missing) > chosen.total():
            return False
        return all(
            sum(row in predicted for row in rows) >= chosen[group]
            and len(missing.difference(*(within[g] for g in cut if g != group))) <= chosen[group]
            for group, rows in edges.items()
        )


def ties_bytes(ties: Ties | None) -> int:
    """Memory of the rows left out and of the groups' numbers."""
    if ties is None:
        return 0
    return rows_bytes(ties.spare) + GROUP_BYTES * (len(ties.groups) + len(ties.spare_groups))


def tie_query(sql: str, width: int, rows: int, *, ordered: bool, with_keys: bool) -> TieQuery | None:
    """For a query whose result has `width` columns and `rows` rows; None where ties at its top level change nothing.

    That is so without an ORDER BY there, and where its order does not count (`ordered`) and no LIMIT cuts it.
    Raises KeysUnknown.
    """
    if not ordered and "limit" not in sql.lower():
        return None
    try:
        tree = parse_query(sql)
    except ParseFailure as failure:
        raise KeysUnknown(str(failure)) from failure
    cut = tree.args.get("limit") is not None
    if tree.args.get("order") is None or (rows == 1 and not cut) or not (ordered or cut):
        return None
    offset = _offset(tree)
    fetched = offset + rows + SPARE_ROWS if cut else None
    readings = _Readings(tree, width)
    texts = [readings.text(fetched, with_keys, replace=False)]
    if readings.two_fold:
        texts.append(readings.text(fetched, with_keys, replace=True))
    return TieQuery(texts=tuple(texts), width=width, offset=offset, fetched=fetched)


def find_ties(query: TieQuery, gold: Sequence[Row], ranked: Sequence[Row], *, inexact: bool) -> Ties | None:
    """The groups of the gold's rows, from the rows that the tie query gave; None where no two rows tie.

    `inexact`: the rows have their keys, and keys that differ like two sums of the same numbers tie too.
    Raises KeysUnknown where the two results disagree, or where more rows tie than were asked for.
    """
    groups = _grouped(ranked, query.width, inexact)
    shown: list[int] = []
    spare: list[Row] = []
    spare_groups: list[int] = []
    start, end = query.offset, query.offset + len(gold)
    position = 0
    for number, rows in enumerate(groups):
        first, position = position, position + len(rows)
        inside = gold[max(first, start) - start : max(min(position, end) - start, 0)]
        if not inside:
            continue
        left = Counter(rows)
        left.subtract(inside)
        if min(left.values()) < 0:
            raise KeysUnknown("ranking the rows gives other rows")
        if position == query.fetched:
            raise KeysUnknown(f"more than {SPARE_ROWS} rows tie at the edge")
        shown.extend([number] * len(inside))
        spare.extend(left.elements())
        spare_groups.extend([number] * left.total())
    if len(shown) != len(gold):
        raise KeysUnknown("ranking the rows gives other rows")
    if not spare and len(set(shown)) == len(shown):
        return None
    return Ties(groups=tuple(shown), spare=tuple(spare), spare_groups=tuple(spare_groups))


def _grouped(ranked: Sequence[Row], width: int, inexact: bool) -> list[list[Row]]:
    """The visible rows by rank."""
    by_rank: dict[Value, list[Row]] = {}
    for row in ranked:
        by_rank.setdefault(row[-1], []).append(row)
    groups: list[list[Row]] = []
    previous: Row | None = None
    for rank in sorted(by_rank, key=lambda value: value if isinstance(value, int) else 0):
        rows = by_rank[rank]
        keys = rows[0][width:-1]
        visible = [row[:width] for row in rows]
        if inexact and previous is not None and _same_keys(previous, keys):
            groups[-1].extend(visible)
        else:
            groups.append(visible)
        previous = keys
    return groups


def _same_keys(left: Row, right: Row) -> bool:
    first, second = settled(([left], [right]), (True, True))
    return first[0] == second[0]


def _offset(tree: exp.Expr) -> int:
    clause = tree.args.get("offset")
    if clause is None:
        return 0
    value = clause.expression
    if not isinstance(value, exp.Literal) or not value.name.isdigit():
        raise KeysUnknown("the OFFSET is no plain number")
    return int(value.name)


class _Readings:
    """Writes the tie query of one sorted query."""

    def __init__(self, tree: exp.Expr, width: int) -> None:
        self._tree = tree
        self._width = width
        self.two_fold = False
        """Whether a sort expression holds a name that may be an alias or a column; known once `text` has run."""

    def text(self, fetched: int | None, with_keys: bool, *, replace: bool) -> str:
        """`replace`: a name inside a sort expression is an alias, where it could also be a column."""
        inner = self._tree.copy()
        order = inner.args["order"]
        columns = [f"c{i}" for i in range(1, self._width + 1)]
        terms, keys, names = [], [], []
        for number, ordered in enumerate(order.expressions, start=1):
            bare, collations = _without_collation(ordered.this)
            place = self._place(bare)
            names.append(f"quorum_k{number}" if place is None else f"c{place}")
            if place is None:
                keys.append(exp.alias_(self._expression(bare, replace), names[-1]))
            key: exp.Expr = exp.column(names[-1])
            for name in collations:
                key = exp.Collate(this=key, expression=name.copy())
            term = ordered.copy()
            term.set("this", key)
            terms.append(term.sql(dialect="sqlite"))
        for made in keys:
            inner.append("expressions", made)
        inner.set("offset", None)
        if fetched is not None:
            inner.set("limit", exp.Limit(expression=exp.Literal.number(fetched)))
        listed = ", ".join((*columns, *(made.alias for made in keys)))
        shown = ", ".join((*columns, *names) if with_keys else columns)
        return (
            f"WITH {ROWS}({listed}) AS ({inner.sql(dialect='sqlite')}) "
            f"SELECT {shown}, DENSE_RANK() OVER (ORDER BY {', '.join(terms)}) FROM {ROWS}"
        )

    def _place(self, key: exp.Expr) -> int | None:
        """The result column that a sort term stands for, from 1; None: it is an expression of its own."""
        if isinstance(key, exp.Literal) and not key.is_string and key.name.isdigit():
            place = int(key.name)
            if not 1 <= place <= self._width:
                raise KeysUnknown(f"there is no column {place}")
            return place
        if isinstance(key, exp.Neg) and key.find(exp.Column) is None:
            raise KeysUnknown("whether a sort key is a number of a column")  # `- -1` is
        arms = _arms(self._tree)
        for arm in arms:
            for place, item in enumerate(arm.expressions, start=1):
                if item.is_star:
                    break
                if isinstance(item, exp.Alias) and _is_name(key, item.alias):
                    return place
        if isinstance(self._tree, exp.Select):
            return None
        for arm in arms:
            for place, item in enumerate(arm.expressions, start=1):
                if item.is_star:
                    break
                if item.unalias() == key or isinstance(item, exp.Column) and _is_name(key, item.name):
                    return place
        raise KeysUnknown("a sort key of a set operation is no column of its result")

    def _expression(self, key: exp.Expr, replace: bool) -> exp.Expr:
        select = self._tree
        aliases = {i.alias.lower(): i.this for i in reversed(select.expressions) if isinstance(i, exp.Alias)}
        if isinstance(key, exp.Column) and not key.table and key.name.lower() in aliases:
            key = aliases[key.name.lower()]  # on its own, the name is the alias before it is a column
        key = exp.paren(key.copy())
        for column in [c for c in key.find_all(exp.Column) if not c.table and c.name.lower() in aliases]:
            self.two_fold = True
            if replace:
                column.replace(exp.paren(aliases[column.name.lower()].copy()))
            elif column.this.args.get("quoted"):  # SQLite takes a quoted name that is no column for text
                if not _PLAIN.fullmatch(column.name):
                    raise KeysUnknown(f"whether {column.name} is a column or an alias")
                column.this.set("quoted", False)
        key = key.this
        if select.args.get("distinct") and not _is_shown(key, select):
            raise KeysUnknown("rows that DISTINCT makes one may have different sort keys")
        return key


def _without_collation(key: exp.Expr) -> tuple[exp.Expr, list[exp.Expr]]:
    """The term without brackets and COLLATE around it, and the collations, the inner first."""
    names: list[exp.Expr] = []
    while isinstance(key, (exp.Collate, exp.Paren)):
        if isinstance(key, exp.Collate):
            names.insert(0, key.expression)
        key = key.this
    return key, names


def _arms(tree: exp.Expr) -> list[exp.Select]:
    """The SELECTs of a set operation, from the left."""
    if isinstance(tree, exp.Select):
        return [tree]
    if isinstance(tree, exp.SetOperation):
        return _arms(tree.this) + _arms(tree.expression)
    return []


def _is_name(key: exp.Expr, name: str) -> bool:
    return isinstance(key, exp.Column) and not key.table and key.name.lower() == name.lower()


def _is_shown(key: exp.Expr, select: exp.Expr) -> bool:
    """Whether a key is made of what a SELECT DISTINCT shows, so that rows made one have one key."""
    items = [item.unalias() for item in select.expressions]
    if key in items or any(isinstance(item, exp.Star) for item in items):
        return True
    shown = [item for item in items if isinstance(item, exp.Column)]
    columns = list(key.find_all(exp.Column))
    if key.find(exp.Query, exp.Window) or any(call.name.lower() in UNSTEADY for call in key.find_all(exp.Anonymous)):
        return False
    return all(any(_same(c, item) for item in shown) for c in columns)


def _same(column: exp.Column, item: exp.Column) -> bool:
    if isinstance(item.this, exp.Star):
        return column.table.lower() == item.table.lower()
    tables = {column.table.lower(), item.table.lower()} - {""}
    return column.name.lower() == item.name.lower() and len(tables) < 2
