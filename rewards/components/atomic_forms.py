"""Canonical forms of SQL expressions: equal forms mean equal expressions.

A form is an s-expression. It does not show letter case of identifiers and keywords, aliases, redundant parentheses,
needless qualification, the order of AND and OR terms, nor the sides of a comparison. A nested query stands in it as a
digest between ⟦ and ⟧. Nodes without a rule of their own show all their arguments, so nothing is dropped silently.
"""

import hashlib
from collections.abc import Callable

from sqlglot import exp

from rewards.components.atomic_scope import Scope, quoted
from rewards.sql.identifiers import fold
from rewards.sql.parse import SqlTooComplex

MAX_DEPTH = 90
"""Nested nodes of one expression."""

_ORDERED: dict[type[exp.Expr], str] = {exp.GT: "gt", exp.GTE: "gte", exp.LT: "lt", exp.LTE: "lte"}
_MIRROR = {"gt": "lt", "gte": "lte", "lt": "gt", "lte": "gte"}
_SYMMETRIC: dict[type[exp.Expr], str] = {
    exp.EQ: "eq",
    exp.NEQ: "neq",
    exp.NullSafeEQ: "is",
    exp.NullSafeNEQ: "is_not",
    exp.Add: "+",
    exp.Mul: "*",
}
_CHAINED: dict[type[exp.Expr], str] = {
    **_ORDERED,
    **_SYMMETRIC,
    exp.Sub: "-",
    exp.Div: "/",
    exp.Mod: "%",
    exp.DPipe: "||",
    exp.BitwiseAnd: "&",
    exp.BitwiseOr: "|",
    exp.BitwiseLeftShift: "<<",
    exp.BitwiseRightShift: ">>",
    exp.Is: "is",
}


def digest(form: str) -> str:
    """A fixed-length stand-in for a form."""
    return hashlib.blake2b(form.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def bare(node: exp.Expr) -> exp.Expr:
    """The node inside any parentheses."""
    while type(node) is exp.Paren:
        node = node.this
    return node


def present(node: exp.Expr) -> list[str]:
    """Names of the arguments that are there, in order."""
    return sorted(key for key, value in node.args.items() if value is not None and value is not False and value != [])


def terms(node: exp.Expr, kind: type[exp.Expr]) -> list[exp.Expr]:
    """The operands of a chain of ANDs (or ORs), however it is grouped, from left to right."""
    stack, found = [node], []
    while stack:
        current = bare(stack.pop())
        if type(current) is kind:
            stack += (current.args["expression"], current.this)
        else:
            found.append(current)
    return found


def affinity(type_words: str) -> str:
    """What CAST makes of a type name (SQLite's rules for column affinity)."""
    words = type_words.upper()
    for affinity_name, marks in (
        ("integer", ("INT",)),
        ("text", ("CHAR", "CLOB", "TEXT")),
        ("blob", ("BLOB",)),
        ("real", ("REAL", "FLOA", "DOUB")),
    ):
        if any(mark in words for mark in marks):
            return affinity_name
    return "numeric" if words else "blob"


class ExpressionReader:
    """Reads expressions of one query. A subclass reads the nested queries."""

    def __init__(self, sql: str) -> None:
        self._sql = sql
        self._depth = 0

    def nested_form(self, node: exp.Expr, scope: Scope) -> str:
        """The form of a whole query inside an expression."""
        raise NotImplementedError

    def form(self, node: exp.Expr, scope: Scope) -> str:
        """The form of one expression. Raises SqlTooComplex beyond MAX_DEPTH."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise SqlTooComplex(f"an expression of more than {MAX_DEPTH} nested nodes")
        rule = _RULES.get(type(node), ExpressionReader._generic)
        text = rule(self, node, scope)
        self._depth -= 1
        return text

    def _generic(self, node: exp.Expr, scope: Scope) -> str:
        parts = [type(node).__name__.lower()]
        parts += [f"{key}:{self._value(node.args[key], scope)}" for key in present(node)]
        return "(" + " ".join(parts) + ")"

    def _value(self, value: object, scope: Scope) -> str:
        if isinstance(value, exp.Expr):
            return self.form(value, scope)
        if isinstance(value, list):
            return "[" + " ".join(self._value(item, scope) for item in value) + "]"
        return quoted(fold(str(value)))

    def _paren(self, node: exp.Expr, scope: Scope) -> str:
        return self.form(bare(node), scope)

    def _column(self, node: exp.Expr, scope: Scope) -> str:
        if isinstance(node.this, exp.Star):
            return f"{fold(node.text('table'))}.*"
        name, qualifier = fold(node.name), fold(node.text("table"))
        found = scope.resolve(name, qualifier)
        if found is not None:
            return found
        if (
            not qualifier
            and node.this.args.get("quoted")
            and f'"{node.name}"' in self._sql
            and not scope.may_hide_names
        ):
            return _text(node.name)  # SQLite takes a double-quoted name that means nothing for a string
        return f"?{quoted(qualifier)}.{quoted(name)}" if qualifier else f"?{quoted(name)}"

    def _literal(self, node: exp.Expr, scope: Scope) -> str:
        return _text(node.name) if node.is_string else node.name.lower()

    def _identifier(self, node: exp.Expr, scope: Scope) -> str:
        return quoted(fold(node.name))

    def _connective(self, node: exp.Expr, scope: Scope) -> str:
        name = "and" if isinstance(node, exp.And) else "or"
        return f"({name} {' '.join(sorted(self.form(term, scope) for term in terms(node, type(node))))})"

    def _chain(self, node: exp.Expr, scope: Scope) -> str:
        """A left-deep run of binary operators, without recursion along it."""
        run = []
        while type(node) in _CHAINED:
            run.append(node)
            node = bare(node.this)
        text = self.form(node, scope)
        for operation in reversed(run):
            text = _joined(type(operation), text, self.form(operation.args["expression"], scope))
        return text

    def _call(self, node: exp.Expr, scope: Scope) -> str:
        name = node.this if isinstance(node.this, str) else node.this.name
        arguments = " ".join([self.form(argument, scope) for argument in node.expressions])
        return f"({quoted(fold(name))} {arguments})"

    def _distinct(self, node: exp.Expr, scope: Scope) -> str:
        return "distinct " + " ".join(self.form(item, scope) for item in node.expressions)

    def _star(self, node: exp.Expr, scope: Scope) -> str:
        return "*"

    def _cast(self, node: exp.Expr, scope: Scope) -> str:
        return f"(cast_{affinity(str(node.args['to'].args.get('kind')))} {self.form(node.this, scope)})"

    def _in(self, node: exp.Expr, scope: Scope) -> str:
        left = self.form(node.this, scope)
        query, field = node.args.get("query"), node.args.get("field")
        if query is not None:
            # IN ((SELECT ..)) compares with one value, IN (SELECT ..) with every row
            kind = "in_value" if isinstance(query.this, exp.Subquery) else "in"
            return f"({kind} {left} {self.nested_form(query, scope)})"
        if field is not None:
            return f"(in_table {left} {quoted(fold(field.name))})"
        return f"(in {left} {' '.join(sorted(self.form(item, scope) for item in node.expressions))})"

    def _nested(self, node: exp.Expr, scope: Scope) -> str:
        return self.nested_form(node, scope)

    def ordered(self, node: exp.Expr, scope: Scope, key: str) -> str:
        """A sort term given its key's form: direction and place of NULLs."""
        desc = bool(node.args.get("desc"))
        nulls = "" if bool(node.args.get("nulls_first")) != desc else " nulls_moved"
        return f"({'desc' if desc else 'asc'} {key}{nulls})"

    def _ordered(self, node: exp.Expr, scope: Scope) -> str:
        return self.ordered(node, scope, self.form(node.this, scope))


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _joined(kind: type[exp.Expr], left: str, right: str) -> str:
    name = _CHAINED[kind]
    if right < left:
        if kind in _SYMMETRIC:
            left, right = right, left
        elif kind in _ORDERED:
            name, left, right = _MIRROR[name], right, left
    return f"({name} {left} {right})"


_RULES: dict[type[exp.Expr], Callable[[ExpressionReader, exp.Expr, Scope], str]] = {
    exp.Paren: ExpressionReader._paren,
    exp.Column: ExpressionReader._column,
    exp.Literal: ExpressionReader._literal,
    exp.Identifier: ExpressionReader._identifier,
    exp.Var: ExpressionReader._identifier,
    exp.And: ExpressionReader._connective,
    exp.Or: ExpressionReader._connective,
    exp.Anonymous: ExpressionReader._call,
    exp.Distinct: ExpressionReader._distinct,
    exp.Star: ExpressionReader._star,
    exp.Cast: ExpressionReader._cast,
    exp.In: ExpressionReader._in,
    exp.Ordered: ExpressionReader._ordered,
    **dict.fromkeys(_CHAINED, ExpressionReader._chain),
    **dict.fromkeys(
        (exp.Subquery, exp.Select, exp.Union, exp.Except, exp.Intersect, exp.Values), ExpressionReader._nested
    ),
}
