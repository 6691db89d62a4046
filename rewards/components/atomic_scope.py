"""Which source a column name means, by SQLite's rules, so that aliases and qualification do not show in a comparison.

Names resolve against the real schema, common table expressions and derived tables, through enclosing queries. A name
that resolves nowhere stays in the form as `?name`: it is never an error here.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlglot import exp

from rewards.sql.identifiers import fold
from rewards.sql.schema import DatabaseSchema

_PLAIN_NAME = re.compile(r"[a-z_][a-z0-9_]*\Z")
_ROWID = frozenset({"rowid", "oid", "_rowid_"})


def quoted(name: str) -> str:
    """A name as it stands in forms: bare when it is plain, else in double quotes."""
    return name if _PLAIN_NAME.match(name) else '"' + name.replace('"', '""') + '"'


@dataclass(frozen=True, slots=True)
class Relation:
    """What a name after FROM stands for."""

    label: str
    columns: Mapping[str, str]
    """Form of each column by folded name, in order."""
    complete: bool = True
    """False: it may have columns that are not listed."""


@dataclass(slots=True)
class Source:
    """One entry of a FROM clause."""

    name: str
    """Folded alias, or the table's own name."""
    relation: Relation
    body: str = ""
    """Form of a derived table, '' for others."""
    call: exp.Expr | None = None
    """A table-valued function with its arguments."""
    label: str = ""
    """The relation's label, numbered where several entries share it."""


@dataclass(slots=True)
class Scope:
    """The names visible in one SELECT, and the operations found in it."""

    sources: list[Source]
    parent: "Scope | None"
    relations: Mapping[str, Relation]
    """Common table expressions in sight, by folded name."""
    path: str
    """Where this SELECT stands in the whole query."""
    operations: dict[str, int] = field(default_factory=dict)
    """Weight of each operation found here and below."""
    aliases: dict[str, str] = field(default_factory=dict)
    """Forms of the select list's aliases, by folded name."""
    clause: str = "select"
    """The clause that is being read."""

    def resolve(self, name: str, qualifier: str) -> str | None:
        """The form of a column given its folded name and qualifier ('' for none), or None where nothing has it."""
        scope: Scope | None = self
        level = ""
        while scope is not None:
            found = scope._find(name, qualifier)
            if found is None and not qualifier:
                found = scope.aliases.get(name)
            if found is not None:
                return level + found
            scope = scope.parent
            level += "^"
        return None

    def _find(self, name: str, qualifier: str) -> str | None:
        open_ended = None
        for source in self.sources:
            if qualifier and source.name != qualifier:
                continue
            code = source.relation.columns.get(name)
            if code is not None:
                return f"{source.label}.{code}"
            if not source.relation.complete or name in _ROWID:
                open_ended = open_ended or f"{source.label}.{quoted(name)}"
        return open_ended

    @property
    def may_hide_names(self) -> bool:
        """Whether a name that does not resolve might still be a column of something in sight."""
        scope: Scope | None = self
        while scope is not None:
            if any(not source.relation.complete for source in scope.sources):
                return True
            scope = scope.parent
        return False


def schema_relations(schema: DatabaseSchema) -> dict[str, Relation]:
    """Every table, view and virtual table of a schema by folded name."""
    return {
        fold(table.name): Relation(
            quoted(fold(table.name)), {fold(column.name): quoted(fold(column.name)) for column in table.columns}
        )
        for table in schema.tables
    }


def derived(label: str, names: tuple[str | None, ...], complete: bool) -> Relation:
    """A subquery in FROM or WITH, given its output names in order (None where SQLite makes one up)."""
    columns: dict[str, str] = {}
    for position, name in enumerate(names):
        columns.setdefault(f"#{position}" if name is None else name, f"#{position}")
    return Relation(label, columns, complete and None not in names)


def written_names(query: exp.Expr) -> tuple[str | None, ...]:
    """Output names of a query's first SELECT as they are written."""
    first = query
    while isinstance(first, (exp.SetOperation, exp.Subquery)):
        first = first.this
    return tuple(fold(item.output_name) or None for item in first.expressions)
