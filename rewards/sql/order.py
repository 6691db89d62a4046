"""Do a gold's rows hang on an order that SQL leaves open?

`order_probes` writes variants of a query that mean the same, but let SQLite meet rows in another order: what a variant
changes, the query does not determine. The scan itself is turned round by `Query.reverse_unordered`, which is no text.

* broken ties: random numbers break the ties of every sorted part of the query, give an order to every LIMIT without one
  and to every subquery that stands for one value, and break the ties of windows that count single rows. Each of two
  sets of numbers comes rising and falling, so that any two tied rows change places; and what the part shows comes in
  their place twice more, so that a LIMIT takes its smallest and its largest rows. A LIMIT that reads a sorted subquery,
  and nothing else, keeps its order, as SQLite keeps it.
* bare: what stands beside an aggregate, so that SQLite chooses its row, is replaced by its smallest and by its largest
  value, and by NULL where one row has that; with `collated` so is what the group has in common.
* mixed: the sources of a SELECT come in two random orders, and in their reverse, where the order of its rows shows: in
  group_concat and its kin, in bare columns beside a single min() or max(), which take the row of the first that ties,
  and, with `collated`, where texts that a collation calls equal become one. `Query.reverse_unordered` does not reach
  them: SQLite scans a SELECT with GROUP BY in its one direction.
* drawn: random(), which is seeded for each query, gives the complement, so that what it sorts is turned round.

They find dependence that shows on the data at hand; they do not prove its absence. Not probed: what a view does, and
bare columns in HAVING and ORDER BY. The ties of the query's own ORDER BY are no dependence where ties.py knows them:
`sorted_known`.
"""

from collections.abc import Iterator
from typing import Literal

from sqlglot import exp

from rewards.sql.parse import ParseFailure, parse_query
from rewards.sql.ties import AGGREGATES

RANKED = frozenset(("rank", "dense_rank", "percent_rank", "cume_dist"))
"""Window functions that give tied rows one value."""
LISTING = frozenset(("group_concat", "string_agg", "json_group_array", "json_group_object"))
"""Aggregates whose result shows the order of their rows."""
Way = Literal["random", "other", "shown"]
WAYS: tuple[Way, ...] = ("random", "other", "shown")
_ORDER_WORDS = ("order", "limit", "over", "random", *sorted(LISTING))


class OrderUnknown(Exception):
    """The query has parts whose order cannot be varied."""


def order_probes(sql: str, *, sorted_known: bool, collated: bool = False) -> tuple[str, ...]:
    """The variants, none for a query without such parts. Raises OrderUnknown.

    `collated`: the database has columns with a collation of their own.
    """
    try:
        tree = parse_query(sql)
    except ParseFailure as failure:
        if any(word in sql.lower() for word in _ORDER_WORDS):
            raise OrderUnknown(str(failure)) from failure
        return ()
    made = []
    # Most queries have no such part, and a tree takes longer to copy than to look at.
    if _open_queries(tree, sorted_known) or _open_windows(tree):
        made += [_shuffle(tree.copy(), way, desc, sorted_known) for way in WAYS for desc in (False, True)]
    collated = collated or "collate" in sql.lower()
    if any(True for select in tree.find_all(exp.Select) for _ in _bare_parts(select, collated)):
        made += [_fix_bare(tree.copy(), how, collated) for how in ("min", "max", "null")]
    if any(_shows_row_order(select, collated) for select in tree.find_all(exp.Select)):
        made += [_mix(tree.copy(), way, desc, collated) for way in WAYS[:2] for desc in (False, True)]
    if "random" in sql.lower() and _draws(tree):
        made.append(_redrawn(tree.copy()))
    return tuple(variant.sql(dialect="sqlite") for variant in made)


def _random(way: Way, desc: bool) -> exp.Ordered:
    """A random sort term. Every query draws the same numbers: `random` takes them as they are, the other two ways by a
    remainder, which is another order."""
    number: exp.Expr = exp.Anonymous(this="random")
    if way != "random":
        number = exp.Mod(this=number, expression=exp.Literal.number(1_000_003))
    return exp.Ordered(this=number, desc=desc, nulls_first=not desc)


def _open_queries(tree: exp.Expr, sorted_known: bool) -> list[exp.Expr]:
    """The parts whose order SQL leaves open, or not all of it."""
    found: list[exp.Expr] = []
    for query in tree.find_all(exp.Select, exp.SetOperation, exp.Values):
        order, limit = query.args.get("order"), query.args.get("limit")
        if order is not None:
            if query is not tree or not sorted_known:
                found.append(query)
        elif (limit is not None and not _keeps_order(query, tree)) or _is_value(query):
            found.append(query)
    return found


def _open_windows(tree: exp.Expr) -> list[exp.Window]:
    """The windows that tell tied rows apart. Raises OrderUnknown."""
    return [window for window in tree.find_all(exp.Window) if _is_open(window)]


def _shuffle(tree: exp.Expr, way: Way, desc: bool, sorted_known: bool) -> exp.Expr:
    """The tree with random numbers in its open orders; `shown`: with what they show instead, where that is known."""
    root = exp.Subquery(this=tree)  # so that the tree itself can be replaced
    for query in _open_queries(tree, sorted_known):
        if not isinstance(query, exp.Select):
            query = _wrapped(query)
        _break_ties(query, _places(query, desc) if way == "shown" else [_random(way, desc)])
    for window in _open_windows(root):
        _break_ties(window, [_random(way, desc)])
    made: exp.Expr = root.this
    made.pop()
    return made


def _places(query: exp.Expr, desc: bool) -> list[exp.Ordered]:
    """Sort terms for all columns of a SELECT; a random number where they cannot be counted."""
    if any(item.is_star for item in query.expressions):
        return [_random("shown", desc)]
    places = range(1, len(query.expressions) + 1)
    return [exp.Ordered(this=exp.Literal.number(place), desc=desc, nulls_first=not desc) for place in places]


def _break_ties(part: exp.Expr, behind: list[exp.Ordered]) -> None:
    """Puts terms behind the sort terms of a query or window."""
    order = part.args.get("order")
    terms = order.expressions if order is not None else []
    part.set("order", exp.Order(expressions=[*terms, *behind]))


def _shows_row_order(select: exp.Select, collated: bool) -> bool:
    """Whether the order in which a SELECT meets its rows may show in them."""
    if select.args.get("from_") is None:
        return False
    parts = [part for key in ("expressions", "having", "order") for part in _parts(select, key)]
    calls = {call.name.lower() for part in parts for call in _calls(part)}
    if calls & LISTING:
        return True
    if _takes_one_row(select) and (select.is_star or any(True for _ in _loose_parts(select, collated))):
        return True
    one = select.args.get("group") or select.args.get("distinct") or calls & {"min", "max"}
    return collated and bool(one or isinstance(select.parent, exp.SetOperation))


def _mix(tree: exp.Expr, way: Way, desc: bool, collated: bool) -> exp.Expr:
    """The tree with the rows of such SELECTs in a random order."""
    for select in [one for one in tree.find_all(exp.Select) if _shows_row_order(one, collated)]:
        for holder in (select.args["from_"], *(select.args.get("joins") or ())):
            source = holder.this
            named = isinstance(source, exp.Table) and isinstance(source.this, exp.Identifier)
            if named and not _is_its_own(source, select):
                _mix_source(source, way, desc)
            elif isinstance(source, exp.Subquery):
                if not isinstance(source.this, exp.Query):
                    raise OrderUnknown("sources in brackets")
                _mix_source(source, way, desc)
    return tree


def _is_its_own(source: exp.Expr, select: exp.Select) -> bool:
    """Whether a recursive common table reads itself, which it may do in no subquery."""
    holder = select.find_ancestor(exp.CTE)
    while holder is not None:
        if holder.alias.lower() == source.name.lower():
            return True
        holder = holder.find_ancestor(exp.CTE)
    return False


def _mix_source(source: exp.Expr, way: Way, desc: bool) -> None:
    """Without the LIMIT SQLite leaves the order of a subquery out."""
    alias = source.args.get("alias")
    name = alias.copy() if alias is not None else exp.TableAlias(this=source.this.copy()) if source.name else None
    inner = exp.Select(expressions=[exp.Star()], from_=exp.From(this=source.copy()))
    inner.set("order", exp.Order(expressions=[_random(way, desc)]))
    inner.set("limit", exp.Limit(expression=exp.Neg(this=exp.Literal.number(1))))
    source.replace(exp.Subquery(this=inner, alias=name))


def _keeps_order(query: exp.Expr, tree: exp.Expr) -> bool:
    """Whether a SELECT reads one subquery that is sorted, or a recursion ends at its limit."""
    holder = query.parent
    if isinstance(holder, exp.CTE) and isinstance(query, exp.SetOperation):
        return bool(holder.parent is not None and holder.parent.args.get("recursive"))
    source = query.args.get("from_")
    if not isinstance(query, exp.Select) or source is None or query.args.get("joins") or query.args.get("group"):
        return False
    body = source.this.this if isinstance(source.this, exp.Subquery) else _common_table(source.this, tree)
    return body is not None and body.args.get("order") is not None


def _common_table(source: exp.Expr, tree: exp.Expr) -> exp.Expr | None:
    name = source.name.lower() if isinstance(source, exp.Table) else ""
    return next((cte.this for cte in tree.find_all(exp.CTE) if name and cte.alias.lower() == name), None)


def _is_value(query: exp.Expr) -> bool:
    """Whether a query stands for the one value of its first row, and may have more."""
    holder = query.parent
    if not isinstance(query, exp.Select) or not isinstance(holder, exp.Subquery) or holder.parent is None:
        return False
    if isinstance(holder.parent, (exp.From, exp.Join, exp.In, exp.Exists, exp.SetOperation, exp.CTE, exp.Subquery)):
        return False
    return query.args.get("group") is not None or not any(map(_has_aggregate, query.expressions))


def _wrapped(query: exp.Expr) -> exp.Select:
    """Puts a set operation or VALUES into the FROM of a SELECT that takes over its order and limit."""
    outer = exp.Select(expressions=[exp.Star()])
    query.replace(outer)
    for key in ("order", "limit", "offset"):
        clause = query.args.get(key)
        query.set(key, None)
        if clause is not None:
            outer.set(key, clause)
    alias = exp.TableAlias(this=exp.to_identifier("quorum_rows"))
    outer.set("from_", exp.From(this=exp.Subquery(this=query, alias=alias)))
    return outer


def _is_open(window: exp.Window) -> bool:
    """Whether a window tells tied rows apart. Raises OrderUnknown."""
    if window.args.get("alias") is not None:
        return False  # it names a window of the WINDOW clause, which is looked at itself
    calls = _users(window) if isinstance(window.this, exp.Identifier) else [window]
    apart = [_tells_rows_apart(call, window) for call in calls]
    if any(apart) and not all(apart):
        raise OrderUnknown("a named window is used in two ways")
    return any(apart)


def _users(window: exp.Window) -> list[exp.Window]:
    """The calls over a window of the WINDOW clause."""
    select = window.find_ancestor(exp.Select)
    calls = select.find_all(exp.Window) if select is not None else ()
    return [call for call in calls if call.args.get("alias") is not None and call.alias.lower() == window.name.lower()]


def _tells_rows_apart(call: exp.Window, window: exp.Window) -> bool:
    """Whether a window function may give rows with equal keys different values."""
    function = call.this.find(exp.Anonymous)
    name = function.name.lower() if function is not None else ""
    spec = call.args.get("spec") or window.args.get("spec")
    by_row = spec is not None and spec.args.get("kind") == "ROWS"
    return name not in RANKED and (by_row or name not in AGGREGATES)


def _fix_bare(tree: exp.Expr, how: str, collated: bool) -> exp.Expr:
    """The tree with one value of the group in the place of what is bare."""
    for select in list(tree.find_all(exp.Select)):
        for part in list(_bare_parts(select, collated)):
            part.replace(_fixed(part, how))
    return tree


def _draws(tree: exp.Expr) -> list[exp.Anonymous]:
    """The calls of random(). Raises OrderUnknown."""
    calls = [call for call in tree.find_all(exp.Anonymous) if call.name.lower() in ("random", "randomblob")]
    if any(call.name.lower() == "randomblob" for call in calls):
        raise OrderUnknown("random blobs have no complement")
    return calls


def _redrawn(tree: exp.Expr) -> exp.Expr:
    for call in _draws(tree):
        call.replace(exp.BitwiseNot(this=call.copy()))
    return tree


def _fixed(part: exp.Expr, how: str) -> exp.Expr:
    """`min` and `max` as texts differ, whatever a collation says; `null`: NULL where the group has one."""
    value = exp.Collate(this=exp.paren(part.copy()), expression=exp.var("BINARY"))
    if how != "null":
        return exp.Anonymous(this=how, expressions=[value])
    known = exp.Anonymous(this="count", expressions=[value.copy()])
    all_rows = exp.Anonymous(this="count", expressions=[exp.Star()])
    least = exp.Anonymous(this="min", expressions=[value])
    return exp.Case(ifs=[exp.If(this=exp.EQ(this=known, expression=all_rows), true=least)])


def _bare_parts(select: exp.Select, collated: bool) -> Iterator[exp.Expr]:
    """What no aggregate and no GROUP BY term settles in the select list; a term settles a text up to its collation."""
    group = select.args.get("group")
    if group is None and not any(map(_has_aggregate, select.expressions)):
        return
    if not _takes_one_row(select):
        yield from _loose_parts(select, collated)


def _loose_parts(select: exp.Select, collated: bool) -> Iterator[exp.Expr]:
    """The same, also beside a single min() or max(): whole items where they hold no aggregate, else columns."""
    group = select.args.get("group")
    terms = group.expressions if group is not None else []
    names = {(c.table.lower(), c.name.lower()) for c in terms if isinstance(c, exp.Column)}
    grouped = {name for _, name in names}
    places = {int(t.name) for t in terms if isinstance(t, exp.Literal) and not t.is_string and t.name.isdigit()}
    for place, item in enumerate(select.expressions, start=1):
        if item.is_star:
            raise OrderUnknown("all columns beside an aggregate")
        if place in places or item.alias.lower() in grouped:
            continue  # what is grouped by can hold no aggregate
        if item.unalias() in terms and not collated:
            continue
        loose = [c for c in _own_columns(item) if collated or (c.table.lower(), c.name.lower()) not in names]
        if loose and not _has_aggregate(item) and item.find(exp.Query, exp.Window) is None:
            yield item.unalias()
        else:
            yield from loose


def _takes_one_row(select: exp.Select) -> bool:
    """Whether SQLite takes bare columns from the row of the only min() or max()."""
    calls = [c for key in ("expressions", "having", "order") for part in _parts(select, key) for c in _calls(part)]
    return len([c for c in calls if c.name.lower() in ("min", "max") and len(c.expressions) == 1]) == 1


def _parts(select: exp.Select, key: str) -> list[exp.Expr]:
    value = select.args.get(key)
    return value if isinstance(value, list) else [value] if value is not None else []


def _has_aggregate(item: exp.Expr) -> bool:
    return any(True for _ in _calls(item))


def _calls(item: exp.Expr) -> Iterator[exp.Anonymous]:
    """Aggregate calls of this SELECT, not of one inside it and not over a window."""
    for node in item.walk(prune=lambda n: isinstance(n, (exp.Query, exp.Window))):
        if isinstance(node, exp.Anonymous) and node.name.lower() in AGGREGATES:
            scalar = node.name.lower() in ("min", "max") and len(node.expressions) > 1
            if not scalar:
                yield node


def _own_columns(item: exp.Expr) -> Iterator[exp.Column]:
    """Columns outside aggregates, windows and subqueries."""

    def closed(node: exp.Expr) -> bool:
        return isinstance(node, (exp.Query, exp.Window, exp.Column)) or (
            isinstance(node, exp.Anonymous) and node.name.lower() in AGGREGATES
        )

    for node in item.walk(prune=closed):
        if isinstance(node, exp.Column):
            yield node
