"""Neighbours of a query: each differs from it by one small change of meaning.

They show whether a database instance, or a similarity, can tell a query from its near misses. Guarantees: deterministic
order, no text twice, never the query's own text. Does not guarantee that a mutant runs, nor that it differs from the
query on some database: a few are equivalent to it (DISTINCT over a key, LEFT JOIN over a total foreign key).
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from sqlglot import exp

from rewards.sql.parse import parse_query
from rewards.sql.schema import DatabaseSchema


@dataclass(frozen=True, kw_only=True, slots=True)
class Mutant:
    kind: str
    """What was changed: operator, connective, negation, literal, aggregate, distinct, column, table, join, condition,
    group_by, having, order, limit, set_operation, arithmetic, case, window, cast or select."""
    sql: str


@dataclass(frozen=True, slots=True)
class _Edit:
    """Give argument `key` of `target` another value."""

    kind: str
    target: exp.Expr
    key: str
    value: object


Columns = dict[str, tuple[str, ...]]
"""Column names by lower-case table name."""
Rule = Callable[[exp.Expr, Columns], Iterator[_Edit]]

_COMPARISONS: dict[type[exp.Expr], tuple[type[exp.Expr], ...]] = {
    exp.EQ: (exp.NEQ,),
    exp.NEQ: (exp.EQ,),
    exp.GT: (exp.GTE, exp.LT),
    exp.GTE: (exp.GT, exp.LTE),
    exp.LT: (exp.LTE, exp.GT),
    exp.LTE: (exp.LT, exp.GTE),
}
_ARITHMETIC: dict[type[exp.Expr], type[exp.Expr]] = {
    exp.Add: exp.Sub,
    exp.Sub: exp.Add,
    exp.Mul: exp.Div,
    exp.Div: exp.Mul,
    exp.Mod: exp.Div,
}
_AGGREGATES = {
    "count": ("sum",),
    "sum": ("avg", "count"),
    "avg": ("sum", "max"),
    "total": ("count",),
    "min": ("max",),
    "max": ("min",),
}
_DISTINCT_MATTERS = frozenset({"count", "sum", "avg", "total", "group_concat"})


def mutants(sql: str, schema: DatabaseSchema, *, kinds: Collection[str] | None = None) -> list[Mutant]:
    """All mutants of a query, or those of some kinds, in the order of its syntax tree.

    Raises ParseFailure where the query cannot be parsed.
    """
    tree = parse_query(sql).copy()
    columns = {table.name.lower(): tuple(c.name for c in table.columns) for table in schema.tables}
    original = tree.sql(dialect="sqlite")
    seen = {original}
    found = []
    for node in list(tree.walk(bfs=False)):
        for rule in _RULES:
            for edit in list(rule(node, columns)):
                if kinds is not None and edit.kind not in kinds:
                    continue
                before = edit.target.args.get(edit.key)
                edit.target.set(edit.key, edit.value)
                text = tree.sql(dialect="sqlite")
                edit.target.set(edit.key, before)
                if text not in seen:
                    seen.add(text)
                    found.append(Mutant(kind=edit.kind, sql=text))
    return found


def _replace(kind: str, node: exp.Expr, new: exp.Expr) -> Iterator[_Edit]:
    parent, key = node.parent, node.arg_key
    if parent is None or key is None:
        return
    held = parent.args.get(key)
    if isinstance(held, list):
        yield _Edit(kind, parent, key, [new if item is node else item for item in held])
    else:
        yield _Edit(kind, parent, key, new)


def _binary(kind: type[exp.Expr], left: exp.Expr, right: exp.Expr) -> exp.Expr:
    made = kind(this=left.copy(), expression=right.copy())
    if kind is exp.Div:  # SQLite's division: without these it is written with a CAST
        made.set("typed", True)
        made.set("safe", True)
    return made


def _operator(node: exp.Expr, columns: Columns) -> Iterator[_Edit]:
    for other in _COMPARISONS.get(type(node), ()):
        yield from _replace("operator", node, _binary(other, node.this, node.expression))
    if isinstance(node, exp.Between):
        low, high = node.args["low"], node.args["high"]
        inner = _binary(exp.And, _binary(exp.GT, node.this, low), _binary(exp.LTE, node.this, high))
        outer = _binary(exp.And, _binary(exp.GTE, node.this, low), _binary(exp.LT, node.this, high))
        yield from _replace("operator", node, exp.Paren(this=inner))
        yield from _replace("operator", node, exp.Paren(this=outer))


def _connective(node: exp.Expr, columns: Columns) -> Iterator[_Edit]:
    if isinstance(node, (exp.And, exp.Or)):
        other = exp.Or if isinstance(node, exp.And) else exp.And
        yield from _replace("connective", node, exp.Paren(this=_binary(other, node.this, node.expression)))
        yield from _replace("condition", node, node.this.copy())
        yield from _replace("condition", node, node.expression.copy())


def _negation(node: exp.Expr, columns: Columns) -> Iterator[_Edit]:
    if isinstance(node, exp.Not):
        yield from _replace("negation", node, exp.Paren(this=node.this.copy()))
    elif isinstance(node, (exp.Like, exp.In, exp.Between, exp.Is, exp.Exists)) and not isinstance(node.parent, exp.Not):
        yield from _replace("negation", node, exp.Paren(this=exp.Not(this=exp.Paren(this=node.copy()))))


def _literal(node: exp.Expr, columns: Columns) -> Iterator[_Edit]:
    if not isinstance(node, exp.Literal):
        return
    kind = "limit" if isinstance(node.parent, (exp.Limit, exp.Offset)) else "literal"
    if node.is_string:
        yield from _replace(kind, node, exp.Literal.string(node.name + "x"))
    elif node.name.isdigit():
        yield from _replace(kind, node, exp.Literal.number(int(node.name) + 1))
        if kind == "literal" and int(node.name) > 0:
            yield from _replace(kind, node, exp.Literal.number(int(node.name) - 1))
    else:
        yield from _replace(kind, node, exp.Literal.number(node.name + "1"))


def _function(node: exp.Expr, columns: Columns) -> Iterator[_Edit]:
    if not isinstance(node, exp.Anonymous) or len(node.expressions) != 1:
        return
    name, argument = node.name.lower(), node.expressions[0]
    if not isinstance(argument, exp.Star):
        for other in _AGGREGATES.get(name, ()):
            yield _Edit("aggregate", node, "this", other.upper())
    if name in _DISTINCT_MATTERS:
        if isinstance(argument, exp.Distinct):
            yield _Edit("distinct", node, "expressions", [e.copy() for e in argument.expressions])
        elif not isinstance(argument, exp.Star):
            yield _Edit("distinct", node, "expressions", [exp.Distinct(expressions=[argument.copy()])])


def _column(node: exp.Expr, columns: Columns) -> Iterator[_Edit]:
    """Another column of the same table: the next one in its CREATE TABLE."""
    select = node.find_ancestor(exp.Select)
    if not isinstance(node, exp.Column) or isinstance(node.this, exp.Star) or select is None:
        return
    for table in _tables(select):
        names = columns.get(table.name.lower(), ())
        lowered = [name.lower() for name in names]
        if node.table and node.table.lower() != table.alias_or_name.lower():
            continue
        if node.name.lower() in lowered and len(names) > 1:
            new = names[(lowered.index(node.name.lower()) + 1) % len(names)]
            yield _Edit("column", node, "this", exp.to_identifier(new, quoted=True))
            return


def _tables(select: exp.Select) -> list[exp.Table]:
    source = select.args.get("from_")
    sources = [source.this] if source is not None else []
    sources += [join.this for join in select.args.get("joins") or ()]
    return [table for table in sources if isinstance(table, exp.Table)]


def _table(node: exp.Expr, columns: Columns) -> Iterator[_Edit]:
    """Another table that has all the columns taken from this one."""
    if not isinstance(node, exp.Table) or node.name.lower() not in columns:
        return
    others = list(columns)
    start = others.index(node.name.lower())
    others = others[start + 1 :] + others[:start]
    select = node.find_ancestor(exp.Select)
    if select is None:
        return
    own = {name.lower() for name in columns[node.name.lower()]}
    used = {c.name.lower() for c in select.find_all(exp.Column)} & own
    fitting = [name for name in others if used <= {column.lower() for column in columns[name]}]
    if not fitting:
        return
    new = exp.to_identifier(fitting[0], quoted=True)
    if node.alias:
        yield _Edit("table", node, "this", new)
    else:
        renamed = exp.Table(this=new, alias=exp.TableAlias(this=exp.to_identifier(node.name, quoted=True)))
        yield from _replace("table", node, renamed)


def _join(node: exp.Expr, columns: Columns) -> Iterator[_Edit]:
    if isinstance(node, exp.Join) and (node.args.get("on") or node.args.get("using")):
        args = {key: node.args[key].copy() for key in ("this", "on") if node.args.get(key) is not None}
        args["using"] = [column.copy() for column in node.args.get("using") or ()]
        yield from _replace("join", node, exp.Join(**args, side=None if node.side else "LEFT"))


def _clauses(node: exp.Expr, columns: Columns) -> Iterator[_Edit]:
    for key, kind in (("where", "condition"), ("having", "having"), ("limit", "limit"), ("offset", "limit")):
        if node.args.get(key) is not None and isinstance(node, exp.Query):
            yield _Edit(kind, node, key, None)
    if isinstance(node, exp.Select):
        yield _Edit("distinct", node, "distinct", None if node.args.get("distinct") else exp.Distinct())
        items = node.expressions
        if len(items) > 1:
            for drop in range(len(items)):
                yield _Edit("select", node, "expressions", [e.copy() for i, e in enumerate(items) if i != drop])
            yield _Edit("select", node, "expressions", [e.copy() for e in (items[1], items[0], *items[2:])])


def _group(node: exp.Expr, columns: Columns) -> Iterator[_Edit]:
    if isinstance(node, exp.Group) and node.parent is not None:
        keys = node.expressions
        if len(keys) < 2 and node.parent.args.get("having") is None:
            yield _Edit("group_by", node.parent, "group", None)
        for drop in range(len(keys) if len(keys) > 1 else 0):
            yield _Edit("group_by", node, "expressions", [key.copy() for i, key in enumerate(keys) if i != drop])


def _order(node: exp.Expr, columns: Columns) -> Iterator[_Edit]:
    if isinstance(node, exp.Ordered):
        desc = not node.args.get("desc")
        yield from _replace("order", node, exp.Ordered(this=node.this.copy(), desc=desc, nulls_first=not desc))
    elif isinstance(node, exp.Order) and node.parent is not None:
        yield _Edit("order", node.parent, "order", None)


def _set_operation(node: exp.Expr, columns: Columns) -> Iterator[_Edit]:
    others: dict[type[exp.Expr], type[exp.Expr]] = {
        exp.Union: exp.Intersect,
        exp.Intersect: exp.Except,
        exp.Except: exp.Intersect,
    }
    if type(node) not in others or node.parent is None and not isinstance(node, exp.SetOperation):
        return
    if isinstance(node, exp.Union):
        yield _Edit("set_operation", node, "distinct", not node.args.get("distinct"))
    args = {key: value.copy() for key, value in node.args.items() if isinstance(value, exp.Expr)}
    if node.parent is not None:
        yield from _replace("set_operation", node, others[type(node)](**args, distinct=True))
    elif isinstance(node, exp.Except):
        yield _Edit("set_operation", node, "this", node.expression.copy())


def _arithmetic(node: exp.Expr, columns: Columns) -> Iterator[_Edit]:
    other = _ARITHMETIC.get(type(node))
    if other is not None:
        yield from _replace("arithmetic", node, exp.Paren(this=_binary(other, node.this, node.expression)))
    if isinstance(node, (exp.Sub, exp.Div)):
        yield from _replace("arithmetic", node, exp.Paren(this=_binary(type(node), node.expression, node.this)))


def _case(node: exp.Expr, columns: Columns) -> Iterator[_Edit]:
    if isinstance(node, exp.Case):
        default = node.args.get("default")
        if default is not None:
            yield _Edit("case", node, "default", None)
            first = node.args["ifs"][0]
            yield _Edit("case", first, "true", default.copy())
    elif isinstance(node, exp.Anonymous) and node.name.lower() == "iif" and len(node.expressions) == 3:
        condition, then, other = (e.copy() for e in node.expressions)
        yield _Edit("case", node, "expressions", [condition, other, then])


def _window(node: exp.Expr, columns: Columns) -> Iterator[_Edit]:
    if isinstance(node, exp.Window) and node.args.get("partition_by"):
        yield _Edit("window", node, "partition_by", None)


def _cast(node: exp.Expr, columns: Columns) -> Iterator[_Edit]:
    if isinstance(node, exp.Cast):
        kind = "TEXT" if "INT" in str(node.to.args.get("kind")) else "INTEGER"
        yield _Edit("cast", node, "to", exp.DataType(this=exp.DType.USERDEFINED, kind=kind))


_RULES: tuple[Rule, ...] = (
    *(_operator, _connective, _negation, _literal, _function, _column, _table, _join, _clauses, _group, _order),
    *(_set_operation, _arithmetic, _case, _window, _cast),
)
