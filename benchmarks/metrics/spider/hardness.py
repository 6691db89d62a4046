"""Spider hardness of a gold query: easy, medium, hard or extra, from counts of components.

Source: behaviour of `eval_hardness` in evaluation.py. Two oddities are part of it: a negated condition counts as an
aggregate, and so does each "and" / "or" of HAVING.
"""

from typing import Literal

from benchmarks.metrics.spider.tree import Condition, Query, comparisons, connectives

Hardness = Literal["easy", "medium", "hard", "extra"]
LEVELS: tuple[Hardness, ...] = ("easy", "medium", "hard", "extra")


def hardness(query: Query) -> Hardness:
    """The level of a parsed gold query."""
    components, nested, others = _components(query), len(_nested(query)), _others(query)
    if components <= 1 and others == 0 and nested == 0:
        return "easy"
    if nested == 0 and ((others <= 2 and components <= 1) or (components <= 2 and others < 2)):
        return "medium"
    if nested == 0 and ((others > 2 and components <= 2) or (components == 3 and others <= 2)):
        return "hard"
    if components <= 1 and others == 0 and nested <= 1:
        return "hard"
    return "extra"


def _components(query: Query) -> int:
    """WHERE, GROUP BY, ORDER BY, LIMIT, each join, each OR, each LIKE."""
    count = sum(map(bool, (query.where, query.group_by, query.order_by, query.limit)))
    count += max(0, len(query.tables) - 1)
    for conditions in (query.joins, query.where, query.having):
        count += sum(entry == "or" for entry in connectives(conditions))
        count += sum(condition.operator == "like" for condition in comparisons(conditions))
    return count


def _nested(query: Query) -> list[Query]:
    """Subqueries in conditions, and the right-hand side of a set operation; not those in FROM."""
    found = [
        value
        for conditions in (query.joins, query.where, query.having)
        for condition in comparisons(conditions)
        for value in (condition.value, condition.upper)
        if isinstance(value, Query)
    ]
    return [*found, query.combined[1]] if query.combined else found


def _others(query: Query) -> int:
    """Several aggregates, several select items, several conditions, several grouping columns: one each."""
    aggregates = sum(item.aggregate != "none" for item in query.select)
    aggregates += sum(condition.negated for condition in comparisons(query.where))
    aggregates += sum(column.aggregate != "none" for column in query.group_by)
    for expression in query.order_by:
        aggregates += sum(c is not None and c.aggregate != "none" for c in (expression.left, expression.right))
    aggregates += sum(entry.negated if isinstance(entry, Condition) else True for entry in query.having)
    return sum((aggregates > 1, len(query.select) > 1, len(query.where) > 1, len(query.group_by) > 1))
