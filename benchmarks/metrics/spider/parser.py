"""Parses the SQL subset of Spider's official scorer, with its leniencies and its refusals.

It reads one statement from the first token and ignores what follows it. It refuses LEFT JOIN, `<>`, aliases without
AS, commas between tables, IS NULL, EXISTS, CAST, CASE, lists in IN, quoted identifiers and `count(1)`; an alias may
not have a table's name. Aliases are known to the whole text, subqueries included. Source: behaviour of process_sql.py
in taoyds/test-suite-sql-eval.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from benchmarks.metrics.spider.tokens import tokenize
from benchmarks.metrics.spider.tree import Column, Condition, Expression, Operand, Query, Refused, Selected

CLAUSES = frozenset(("select", "from", "where", "group", "order", "limit", "intersect", "union", "except"))
JOINS = frozenset(("join", "on", "as"))
COMPARISONS = frozenset(("not", "between", "=", ">", "<", ">=", "<=", "!=", "in", "like", "is", "exists"))
ARITHMETIC = frozenset(("none", "-", "+", "*", "/"))
AGGREGATES = frozenset(("none", "max", "min", "count", "sum", "avg"))
COMBINERS = frozenset(("intersect", "union", "except"))
ENDS = frozenset((")", ";"))
MAX_DEPTH = 100
"""Nested queries; the official script meets Python's recursion limit somewhere beyond."""

Schema = Mapping[str, Sequence[str]]
"""Table -> columns, all in lower case."""
Item = TypeVar("Item")


def parse(sql: str, schema: Schema) -> Query:
    """The tree of `sql` over `schema`. Raises Refused."""
    tokens = tokenize(sql)
    parser = _Parser(tokens, _aliases(tokens, schema), schema)
    return parser.query()


def _aliases(tokens: Sequence[str], schema: Schema) -> dict[str, str]:
    """Alias -> the token before its AS, and every table under its own name."""
    aliases: dict[str, str] = {}
    for position, token in enumerate(tokens):
        if token == "as":
            if position + 1 == len(tokens):
                raise Refused("the text ends after AS")
            aliases[tokens[position + 1]] = tokens[position - 1]
    for table in schema:
        if table in aliases:
            raise Refused(f"alias {table} has the name of a table")
        aliases[table] = table
    return aliases


class _Parser:
    """A cursor over the tokens; each method consumes one construct or raises Refused."""

    def __init__(self, tokens: Sequence[str], aliases: Mapping[str, str], schema: Schema, depth: int = 0) -> None:
        self.tokens = tokens
        self.aliases = aliases
        self.schema = schema
        self.at = 0
        self.depth = depth

    def query(self) -> Query:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Refused(f"queries nested deeper than {MAX_DEPTH}")
        block = self._skip("(")
        select_at = self.at
        tables, joins, known = self._from()
        from_end = self.at
        self.at = select_at
        distinct, select = self._select(known)
        self.at = from_end
        where = self._conditions(known) if self._skip("where") else ()
        group_by = self._list("group", lambda: self._column(known))
        having = self._conditions(known) if self._skip("having") else ()
        order_by, direction = self._order_by(known)
        limit = self._limit()
        self._skip_semicolons()
        if block:
            self._expect(")")
        self._skip_semicolons()
        combined = None
        if self._next_in(COMBINERS):
            operator = self._take()
            combined = (operator, self.query())
        self.depth -= 1
        return Query(
            distinct=distinct,
            select=select,
            tables=tables,
            joins=joins,
            where=where,
            group_by=group_by,
            having=having,
            order_by=order_by,
            direction=direction,
            limit=limit,
            combined=combined,
        )

    def _from(self) -> tuple[tuple[str | Query, ...], tuple[Condition | str, ...], tuple[str, ...]]:
        """Tables, join conditions, and the names in which unqualified columns are looked up."""
        try:
            self.at = self.tokens.index("from", self.at) + 1
        except ValueError as error:
            raise Refused("there is no FROM") from error
        tables: list[str | Query] = []
        known: dict[str, None] = {}  # each table once: a column is looked up in all of them
        joins: list[Condition | str] = []
        while self.at < len(self.tokens):
            block = self._skip("(")
            if self._peek() == "select":
                tables.append(self.query())
            else:
                self._skip("join")
                table = self._table()
                tables.append(table)
                known[table] = None
            if self._skip("on"):
                conditions = self._conditions(tuple(known))
                joins += ["and", *conditions] if joins else conditions
            if block:
                self._expect(")")
            if self._next_in(CLAUSES) or self._next_in(ENDS):
                break
        return tuple(tables), tuple(joins), tuple(known)

    def _table(self) -> str:
        name = self._resolve(self._take())
        if self.at < len(self.tokens) and self.tokens[self.at] == "as":
            self.at += 2
        if name not in self.schema:
            raise Refused(f"no table {name}")
        return name

    def _select(self, known: Sequence[str]) -> tuple[bool, tuple[Selected, ...]]:
        self._expect("select")
        distinct = self._skip("distinct")
        items = []
        while self.at < len(self.tokens) and self.tokens[self.at] not in CLAUSES:
            aggregate = self._take() if self._next_in(AGGREGATES) else "none"
            items.append(Selected(aggregate, self._expression(known)))
            self._skip(",")
        return distinct, tuple(items)

    def _order_by(self, known: Sequence[str]) -> tuple[tuple[Expression, ...], str]:
        direction = "asc"

        def item() -> Expression:
            nonlocal direction
            expression = self._expression(known)
            if self._next_in(("asc", "desc")):
                direction = self._take()
            return expression

        ordered = self.at < len(self.tokens) and self.tokens[self.at] == "order"
        items = self._list("order", item)
        if ordered and not items:
            raise Refused("ORDER BY names nothing")
        return items, direction

    def _list(self, clause: str, item: Callable[[], Item]) -> tuple[Item, ...]:
        """`clause` BY item, item, ...; nothing when the clause is absent."""
        items: list[Item] = []
        if not self._skip(clause):
            return ()
        self._expect("by")
        while self.at < len(self.tokens) and not self._next_in(CLAUSES) and not self._next_in(ENDS):
            items.append(item())
            if not self._skip(","):
                break
        return tuple(items)

    def _limit(self) -> bool:
        if not self._skip("limit"):
            return False
        self._take()
        return True

    def _conditions(self, known: Sequence[str]) -> tuple[Condition | str, ...]:
        conditions: list[Condition | str] = []
        while self.at < len(self.tokens):
            conditions.append(self._condition(known))
            if self._next_in(CLAUSES) or self._next_in(ENDS) or self._next_in(JOINS):
                break
            if self._next_in(("and", "or")):
                conditions.append(self._take())
        return tuple(conditions)

    def _condition(self, known: Sequence[str]) -> Condition:
        left = self._expression(known)
        self._peek()
        negated = self._skip("not")
        operator = self._take()
        if operator not in COMPARISONS:
            raise Refused(f"{operator} is no comparison")
        value = self._value(known)
        upper: Operand = None
        if operator == "between":
            self._expect("and")
            upper = self._value(known)
        return Condition(negated, operator, left, value, upper)

    def _value(self, known: Sequence[str]) -> Operand:
        start = self.at
        block = self._skip("(")
        token = self._peek()
        value: Operand
        if token == "select":
            value = self.query()
        elif '"' in token:
            value = self._take()
        else:
            try:
                value = float(token)
                self.at += 1
            except ValueError:
                value = self._column_value(start, known)
        if block:
            self._expect(")")
        return value

    def _column_value(self, start: int, known: Sequence[str]) -> Column:
        """A column on the right of a comparison: whatever stands before the next keyword is read as one, the rest
        skipped.
        """
        end = self.at
        while end < len(self.tokens) and not (
            self.tokens[end] in (",", ")", "and") or self.tokens[end] in CLAUSES or self.tokens[end] in JOINS
        ):
            end += 1
        column = _Parser(self.tokens[start:end], self.aliases, self.schema, self.depth)._column(known)
        self.at = end
        return column

    def _expression(self, known: Sequence[str]) -> Expression:
        block = self._skip("(")
        left = self._column(known)
        operator, right = "none", None
        if self._next_in(ARITHMETIC):
            operator = self._take()
            right = self._column(known)
        if block:
            self._expect(")")
        return Expression(operator, left, right)

    def _column(self, known: Sequence[str]) -> Column:
        block = self._skip("(")
        if self._next_in(AGGREGATES):
            aggregate = self._take()
            self._expect("(")
            distinct = self._skip("distinct")
            name = self._name(known)
            self._expect(")")
            return Column(aggregate, name, distinct)
        distinct = self._skip("distinct")
        name = self._name(known)
        if block:
            self._expect(")")
        return Column("none", name, distinct)

    def _name(self, known: Sequence[str]) -> str:
        token = self._take()
        if token == "*":
            return token
        if "." in token:
            alias, _, column = token.partition(".")
            table = self._resolve(alias)
            if "." in column or column not in self.schema.get(table, ()):
                raise Refused(f"no column {token}")
            return f"{table}.{column}"
        for table in known:
            if token in self.schema[table]:
                return f"{table}.{token}"
        raise Refused(f"no column {token}")

    def _resolve(self, alias: str) -> str:
        try:
            return self.aliases[alias]
        except KeyError as error:
            raise Refused(f"no table or alias {alias}") from error

    def _peek(self) -> str:
        if self.at >= len(self.tokens):
            raise Refused("the text ends too early")
        return self.tokens[self.at]

    def _take(self) -> str:
        token = self._peek()
        self.at += 1
        return token

    def _expect(self, wanted: str) -> None:
        token = self._take()
        if token != wanted:
            raise Refused(f"expected {wanted}, found {token}")

    def _skip(self, token: str) -> bool:
        if self.at < len(self.tokens) and self.tokens[self.at] == token:
            self.at += 1
            return True
        return False

    def _skip_semicolons(self) -> None:
        while self._skip(";"):
            pass

    def _next_in(self, choices: frozenset[str] | tuple[str, ...]) -> bool:
        return self.at < len(self.tokens) and self.tokens[self.at] in choices
