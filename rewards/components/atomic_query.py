"""Reads a whole query: its exact form and its operations, SELECT by SELECT.

Inner joins are a bag of sources with a bag of filters (their ON conditions and WHERE are one). A star stands for its
columns, a number or an alias in ORDER BY and GROUP BY for its expression, a common table expression for its place in
WITH. Sources that share a name are numbered in the way that gives the least form, so that neither aliases nor the order
of a self-join show.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlglot import exp

from rewards.components.atomic_forms import ExpressionReader, bare, digest, present, terms
from rewards.components.atomic_from import Entry, from_entries, numberings
from rewards.components.atomic_operations import (
    CLAUSE_WEIGHTS,
    FORM_WEIGHT,
    Operations,
    Profile,
    add,
    add_all,
    add_whole,
)
from rewards.components.atomic_scope import Relation, Scope, Source, derived, quoted, written_names
from rewards.sql.identifiers import fold
from rewards.sql.parse import SqlSyntaxError, SqlTooComplex, parse_query

MAX_READINGS = 200
"""SELECTs read for one query, over all numberings."""

ALWAYS = "(boolean this:true)"
"""ON TRUE, which the parser also writes for a join without a condition."""

_SELECT_ARGS = frozenset(
    {"expressions", "from_", "joins", "where", "group", "having", "order", "limit", "offset", "distinct", "with_"}
)


@dataclass(frozen=True, slots=True)
class _Block:
    """A query or subquery that has been read."""

    form: str
    columns: tuple[str | None, ...]
    """Folded output names; None where SQLite makes one up."""
    complete: bool
    """False: a star hides some of the columns."""
    operations: Operations


@dataclass(frozen=True, slots=True)
class _From:
    """A FROM clause whose derived tables have been read."""

    sources: list[Source]
    entries: list[Entry]
    fixed: bool
    """The sources cannot change places."""


def read_profile(sql: str, relations: Mapping[str, Relation]) -> Profile:
    """The profile of one query against a schema's tables. Raises ParseFailure."""
    block = _QueryReader(sql).read(parse_query(sql), None, relations, "")
    return Profile(digest(block.form), block.operations)


class _QueryReader(ExpressionReader):
    """Reads one query; make a new one for each."""

    def __init__(self, sql: str) -> None:
        super().__init__(sql)
        self._readings = 0

    def nested_form(self, node: exp.Expr, scope: Scope) -> str:
        block = self.read(node, scope, scope.relations, f"{scope.path}{scope.clause}>")
        add_all(scope.operations, block.operations)
        return f"⟦{digest(block.form)}⟧"

    def read(self, node: exp.Expr, parent: Scope | None, relations: Mapping[str, Relation], path: str) -> _Block:
        """A SELECT, compound or VALUES with its common table expressions."""
        while isinstance(node, exp.Subquery) and set(present(node)) <= {"this", "alias"}:
            node = node.this
        if node.args.get("with_") is None:
            return self._plain(node, parent, relations, path)
        inside = dict(relations)
        operations: Operations = {}
        prefix = ""
        for cte in node.args["with_"].expressions:
            body = self._common_table(cte, parent, inside, path)
            add_all(operations, body.operations)
            prefix += f"(with {body.form})"
        block = self._plain(node, parent, inside, path)
        add_all(operations, block.operations)
        return _Block(prefix + block.form, block.columns, block.complete, operations)

    def _plain(self, node: exp.Expr, parent: Scope | None, relations: Mapping[str, Relation], path: str) -> _Block:
        if isinstance(node, exp.Select):
            return self._select(node, parent, relations, path)
        if isinstance(node, exp.SetOperation):
            return self._compound(node, parent, relations, path)
        if isinstance(node, exp.Values):
            scope = Scope([], parent, relations, path)
            rows = [self.form(row, scope) for row in node.expressions]
            add_whole(scope.operations, path, "select", rows)
            names = tuple(f"column{i + 1}" for i in range(len(node.expressions[0].expressions)))
            return _Block(f"(values {' '.join(rows)})", names, True, scope.operations)
        raise SqlSyntaxError(f"a {type(node).__name__} where a query belongs")

    def _common_table(self, cte: exp.Expr, parent: Scope | None, relations: dict[str, Relation], path: str) -> _Block:
        """Reads one entry of WITH and adds it to `relations`; while it is read, its own name means itself."""
        name = fold(cte.alias)
        label = f"C{1 + max((int(r.label[1:]) for r in relations.values() if r.label[0] == 'C'), default=-1)}"
        given = tuple(fold(column.name) for column in cte.args["alias"].args.get("columns") or ())
        relations[name] = derived(label, given or written_names(cte.this), bool(given))
        body = self.read(cte.this, parent, relations, f"{path}{label}>")
        relations[name] = derived(label, given or body.columns, bool(given) or body.complete)
        return body

    def _compound(self, node: exp.Expr, parent: Scope | None, relations: Mapping[str, Relation], path: str) -> _Block:
        kinds: list[str] = []
        operands: list[exp.Expr] = []
        first = node
        while isinstance(first, exp.SetOperation):
            kinds.append(type(first).__name__.lower() + ("" if first.args.get("distinct") else " all"))
            operands.append(first.args["expression"])
            first = first.this
        blocks = [self.read(first, parent, relations, path)]
        scope = Scope([], parent, relations, path)
        chain = blocks[0].form
        for position, (kind, operand) in enumerate(zip(reversed(kinds), reversed(operands), strict=True), 1):
            blocks.append(self.read(operand, parent, relations, f"{path}set{position}>"))
            add(scope.operations, f"{path}set {position} {kind}", CLAUSE_WEIGHTS["set"])
            chain += f" {kind} {blocks[-1].form}"
        for block in blocks:
            add_all(scope.operations, block.operations)
        names = blocks[0].columns
        for block in blocks:
            for position, name in enumerate(block.columns):
                if name is not None:
                    scope.aliases.setdefault(name, f"#{position}")
        chain += self._order(node, scope, [f"#{i}" for i in range(len(names))]) + self._limits(node, scope)
        form = f"({chain})"
        add(scope.operations, f"{path}={digest(form)}", FORM_WEIGHT)
        return _Block(form, names, all(block.complete for block in blocks), scope.operations)

    def _select(self, node: exp.Expr, parent: Scope | None, relations: Mapping[str, Relation], path: str) -> _Block:
        found: Operations = {}
        entries, fixed = from_entries(node)
        clause = _From([self._source(e.item, parent, relations, path, found) for e in entries], entries, fixed)
        best: _Block | None = None
        for labels in numberings([source.relation.label for source in clause.sources]):
            self._readings += 1
            if self._readings > MAX_READINGS:
                raise SqlTooComplex(f"more than {MAX_READINGS} readings of its SELECTs")
            for source, label in zip(clause.sources, labels, strict=True):
                source.label = label
            block = self._numbered(node, clause, Scope(clause.sources, parent, relations, path, dict(found)))
            if best is None or block.form < best.form:
                best = block
        assert best is not None, "there is at least one numbering"
        return best

    def _source(
        self, item: exp.Expr, parent: Scope | None, relations: Mapping[str, Relation], path: str, found: Operations
    ) -> Source:
        if not isinstance(item, exp.Table):
            block = self.read(item, parent, relations, f"{path}from>")
            add_all(found, block.operations)
            return Source(fold(item.alias), derived("D", block.columns, block.complete), body=block.form)
        name, database = fold(item.name), fold(item.text("db"))
        relation = relations.get(name) if database in ("", "main") else None
        if relation is None:
            relation = Relation(quoted(f"{database}.{name}" if database else name), {}, False)
        call = item.this if isinstance(item.this, exp.Anonymous) else None
        return Source(fold(item.alias) or name, relation, call=call)

    def _numbered(self, node: exp.Expr, clause: _From, scope: Scope) -> _Block:
        """Reads a SELECT whose sources have their labels."""
        filters: list[str] = []
        sources = self._sources(clause, scope, filters)
        items, names, complete = self._items(node, clause, scope)
        scope.clause = "where"
        filters += self._conditions(node, "where", scope)
        filters.sort()
        groups = self._groups(node, scope, items)
        scope.clause = "having"
        having = sorted(self._conditions(node, "having", scope))
        scope.clause = "other"
        others = [f"{k} {self._value(node.args[k], scope)}" for k in sorted(set(present(node)) - _SELECT_ARGS)]
        if node.args.get("distinct"):
            others.append("distinct")
            add(scope.operations, f"{scope.path}distinct", CLAUSE_WEIGHTS["distinct"])
        for kind, forms in (("select", items), ("where", filters), ("group", groups), ("having", having)):
            add_whole(scope.operations, scope.path, kind, forms)
        order = self._order(node, scope, items)
        form = (
            f"(select {' '.join(items)} (from {sources}) (where {' '.join(filters)}) (group {' '.join(groups)})"
            f" (having {' '.join(having)}) ({' '.join(others)}){order}{self._limits(node, scope)})"
        )
        add(scope.operations, f"{scope.path}={digest(form)}", FORM_WEIGHT)
        return _Block(form, tuple(names), complete, scope.operations)

    def _sources(self, clause: _From, scope: Scope, filters: list[str]) -> str:
        """The form of the sources; ON conditions of inner joins go to `filters`."""
        inner, outer = [], []
        for source, entry in zip(clause.sources, clause.entries, strict=True):
            join = entry.join
            scope.clause = "from"
            shown = source.label + (f"=⟦{digest(source.body)}⟧" if source.body else "")
            if source.call is not None:
                shown += self.form(source.call, scope)
            add_whole(scope.operations, scope.path, "from", [shown])
            scope.clause = "where" if entry.inner else "join"
            on = [] if join is None else self._conditions(join, "on", scope)
            if join is None or entry.inner:
                inner.append(shown)
                filters += on
            else:
                using = " ".join(quoted(fold(c.name)) for c in join.args.get("using") or ())
                kind = " ".join(str(join.args.get(key) or "").lower() for key in ("method", "side"))
                outer.append(f"({kind} join {shown} {' '.join(sorted(on))} using {using})")
                add_whole(scope.operations, scope.path, "join", outer[-1:])
            if clause.fixed and inner:
                outer.append(inner.pop())
        return " ".join(sorted(inner) + outer)

    def _conditions(self, node: exp.Expr, key: str, scope: Scope) -> list[str]:
        condition = node.args.get(key)
        if condition is None:
            return []
        inside = condition if key == "on" else condition.this
        forms = [self.form(term, scope) for term in terms(inside, exp.And)]
        return [form for form in forms if form != ALWAYS] if key == "on" else forms

    def _items(self, node: exp.Expr, clause: _From, scope: Scope) -> tuple[list[str], list[str | None], bool]:
        """Forms and names of the select list, and whether all its columns are known. Fills the scope's aliases."""
        scope.clause = "select"
        items: list[str] = []
        names: list[str | None] = []
        complete = True
        aliases: dict[str, str] = {}
        for item in node.expressions:
            if bare(item).is_star and isinstance(item, (exp.Star, exp.Column)):
                starred = [s for s in scope.sources if isinstance(item, exp.Star) or s.name == fold(item.text("table"))]
                if clause.fixed or not all(source.relation.complete for source in starred):
                    complete = False
                    items.append(f"(star {' '.join(source.label for source in starred)})")
                    names.append(None)
                    continue
                for source in starred:
                    items += [f"{source.label}.{code}" for code in source.relation.columns.values()]
                    names += list(source.relation.columns)
                continue
            form = self.form(item.unalias(), scope)
            items.append(form)
            names.append(fold(item.output_name) or None)
            if isinstance(item, exp.Alias):
                aliases.setdefault(fold(item.alias), form)
        scope.aliases = aliases
        return items, names, complete

    def _groups(self, node: exp.Expr, scope: Scope, items: list[str]) -> list[str]:
        scope.clause = "group"
        group = node.args.get("group")
        if group is None:
            return []
        extra = [f"{k} {self._value(group.args[k], scope)}" for k in sorted(set(present(group)) - {"expressions"})]
        return sorted(_position(key, items) or self.form(key, scope) for key in group.expressions) + extra

    def _order(self, node: exp.Expr, scope: Scope, items: list[str]) -> str:
        """ORDER BY terms: a position, then an alias, then an expression."""
        scope.clause = "order"
        order = node.args.get("order")
        found = []
        for term in order.expressions if order is not None else ():
            key = bare(term.this)
            form = _position(key, items)
            if form is None and isinstance(key, exp.Column) and not key.table:
                form = scope.aliases.get(fold(key.name))
            found.append(self.ordered(term, scope, form or self.form(key, scope)))
        add_whole(scope.operations, scope.path, "order", (f"{i} {form}" for i, form in enumerate(found)))
        return f" (order {' '.join(found)})" if found else ""

    def _limits(self, node: exp.Expr, scope: Scope) -> str:
        scope.clause = "limit"
        found = [
            f"({key} {self.form(node.args[key].args.get('expression') or node.args[key], scope)})"
            for key in ("limit", "offset")
            if node.args.get(key) is not None
        ]
        add_whole(scope.operations, scope.path, "limit", found)
        return "".join(f" {form}" for form in found)


def _position(key: exp.Expr, items: list[str]) -> str | None:
    """The select item that a number stands for."""
    key = bare(key)
    if isinstance(key, exp.Literal) and not key.is_string and key.name.isdigit() and 0 < int(key.name) <= len(items):
        return items[int(key.name) - 1]
    return None
