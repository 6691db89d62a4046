"""Spider's exact set match: the clauses of two parsed queries are equal as sets, whatever their values.

Ignored: literals, the LIMIT number, DISTINCT, the order of select items and of WHERE conditions, join conditions.
Columns linked by a foreign key count as one. Inside subqueries of conditions only literals are ignored; a subquery in
FROM must be the same in everything. Source: behaviour of evaluation.py (`rebuild_sql_val`, `rebuild_sql_col`,
`eval_exact_match`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from benchmarks.metrics.spider.tree import (
    Column,
    Condition,
    Conditions,
    Expression,
    Query,
    Selected,
    comparisons,
    connectives,
)

SameColumn = Mapping[str, str]
"""`table.column` -> the column that stands for its foreign-key family; columns without family are absent."""


def foreign_key_families(entry: Mapping[str, Any]) -> SameColumn:
    """Families of linked columns from one entry of tables.json; the smallest column number stands for each.

    A key that links two families joins the first of them only, as in the official script.
    """
    tables = entry["table_names_original"]
    names = [
        f"{tables[table].lower()}.{column.lower()}" if table >= 0 else "*"
        for table, column in entry["column_names_original"]
    ]
    families: list[set[int]] = []
    for left, right in entry["foreign_keys"]:
        family = next((f for f in families if left in f or right in f), None)
        if family is None:
            family = set()
            families.append(family)
        family |= {left, right}
    return {names[member]: names[min(family)] for family in families for member in family}


def exact_match(gold: Query, predicted: Query, same: SameColumn) -> bool:
    """Whether two parsed queries agree in every clause."""
    return _match(_normal(gold, _linked(gold, same)), _normal(predicted, _linked(predicted, same)))


def _linked(query: Query, same: SameColumn) -> SameColumn:
    """The families of the columns of the outermost FROM tables; they hold for the whole set operation."""
    tables = {table for table in query.tables if isinstance(table, str)}
    return {column: name for column, name in same.items() if column.partition(".")[0] in tables}


def _normal(query: Query, same: SameColumn) -> Query:
    """The query without literals and DISTINCT, each column replaced by its family's."""

    def column(c: Column) -> Column:
        return Column(c.aggregate, same.get(c.name, c.name), None)

    def expression(e: Expression) -> Expression:
        return Expression(e.operator, column(e.left), column(e.right) if e.right else None)

    def conditions(entries: Conditions) -> Conditions:
        return tuple(
            replace(entry, left=expression(entry.left)) if isinstance(entry, Condition) and not i % 2 else entry
            for i, entry in enumerate(_without_literals(entries))
        )

    return replace(
        query,
        distinct=None,
        select=tuple(Selected(s.aggregate, expression(s.expression)) for s in query.select),
        joins=conditions(query.joins),
        where=conditions(query.where),
        group_by=tuple(map(column, query.group_by)),
        having=conditions(query.having),
        order_by=tuple(map(expression, query.order_by)),
        combined=(query.combined[0], _normal(query.combined[1], same)) if query.combined else None,
    )


def _without_literals(entries: Conditions) -> Conditions:
    def operand(value: object) -> Query | None:
        return _forget_literals(value) if isinstance(value, Query) else None

    return tuple(
        replace(entry, value=operand(entry.value), upper=operand(entry.upper))
        if isinstance(entry, Condition) and not i % 2
        else entry
        for i, entry in enumerate(entries)
    )


def _forget_literals(query: Query) -> Query:
    return replace(
        query,
        joins=_without_literals(query.joins),
        where=_without_literals(query.where),
        having=_without_literals(query.having),
        combined=(query.combined[0], _forget_literals(query.combined[1])) if query.combined else None,
    )


def _match(gold: Query, predicted: Query) -> bool:
    return (
        _same_bag(gold.select, predicted.select)
        and _same_bag(gold.where[::2], predicted.where[::2])
        and set(connectives(gold.where)) == set(connectives(predicted.where))
        and _groups_match(gold, predicted)
        and gold.order_by == predicted.order_by
        and _keywords(gold) == _keywords(predicted)
        and _combined_match(gold, predicted)
        and _same_bag(gold.tables, predicted.tables)
    )


def _groups_match(gold: Query, predicted: Query) -> bool:
    """Grouping columns in order, and HAVING with them; HAVING without GROUP BY is not compared."""
    if not gold.group_by and not predicted.group_by:
        return True
    columns = [c.name for c in gold.group_by] == [c.name for c in predicted.group_by]
    return columns and gold.having == predicted.having


def _combined_match(gold: Query, predicted: Query) -> bool:
    if gold.combined is None or predicted.combined is None:
        return gold.combined is predicted.combined
    return gold.combined[0] == predicted.combined[0] and _match(gold.combined[1], predicted.combined[1])


def _keywords(query: Query) -> set[str]:
    """The keywords that the official script compares; the direction of ORDER BY is one of them."""
    present = {
        "where": bool(query.where),
        "group": bool(query.group_by),
        "having": bool(query.having),
        "limit": query.limit,
    }
    words = {word for word, used in present.items() if used}
    if query.order_by:
        words |= {"order", query.direction}
    if query.combined:
        words.add(query.combined[0])
    for conditions in (query.joins, query.where, query.having):
        words |= {"or" for entry in connectives(conditions) if entry == "or"}
        for condition in comparisons(conditions):
            words |= {"not"} if condition.negated else set()
            words |= {condition.operator} & {"in", "like"}
    return words


def _same_bag(left: Iterable[object], right: Sequence[object]) -> bool:
    """Equal as bags."""
    rest = list(right)
    for item in left:
        if item not in rest:
            return False
        rest.remove(item)
    return not rest
