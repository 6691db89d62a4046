"""A database as a prompt describes it: its columns in order, with keys and example values.

Schemas and example values are read once a database file, through read-only connections. Example values are drawn by a
hash of the value: the same file always gives the same prompt. Each is a literal that finds its row. Views have none:
what they show is computed, perhaps from the clock, at any cost.
"""

import sqlite3
import zlib
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from math import isfinite

from rewards.sql.identifiers import fold
from rewards.sql.schema import (
    READ_STEPS,
    DatabaseSchema,
    DatabaseUnreadable,
    connect_readonly,
    is_own_fault,
    limit_steps,
    read_schema,
)

MAX_VALUE_CHARS = 40
"""Longer example values are left out: a cut value would teach a wrong literal."""

_RESERVED = frozenset(
    "ADD ALL ALTER AND AS AUTOINCREMENT BETWEEN CASE CAST CHECK COLLATE COMMIT CONSTRAINT CREATE CURRENT_DATE "
    "CURRENT_TIME CURRENT_TIMESTAMP DEFAULT DEFERRABLE DELETE DISTINCT DROP ELSE ESCAPE EXCEPT EXISTS FALSE FOREIGN "
    "FROM GROUP HAVING IF IN INDEX INSERT INTERSECT INTO IS ISNULL JOIN LIMIT NOT NOTHING NOTNULL NULL ON OR ORDER "
    "PRIMARY RAISE REFERENCES RETURNING SELECT SET TABLE THEN TO TRANSACTION TRUE UNION UNIQUE UPDATE USING VALUES "
    "WHEN WHERE WITH".split()
)
"""Words that SQLite refuses as bare names of a column or a table somewhere in a query, or reads as something else."""

_SAMPLED_ROWS = 1000
"""Rows looked at for example values, so that a table of millions costs no more than a small one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DescribedColumn:
    table: str
    name: str
    type: str
    primary_key: bool = False
    references: tuple[str, str] | None = None
    """(other table, other column) of a foreign key."""
    referenced: bool = False
    """Another table's foreign key points here."""
    view: bool = False
    """The table is a view."""
    examples: tuple[str, ...] = ()
    """SQL literals."""

    @property
    def is_key(self) -> bool:
        return self.primary_key or self.references is not None or self.referenced


Described = tuple[DescribedColumn, ...]
"""Columns of all tables, in the order of the database; a table is a run of columns with its name."""


def by_table(columns: Iterable[DescribedColumn]) -> dict[str, list[DescribedColumn]]:
    """Columns grouped by table, both in their given order."""
    tables: dict[str, list[DescribedColumn]] = {}
    for column in columns:
        tables.setdefault(column.table, []).append(column)
    return tables


def foreign_keys(columns: Iterable[DescribedColumn]) -> list[tuple[DescribedColumn, DescribedColumn]]:
    """(referring, referenced) pairs of which both columns are described."""
    columns = tuple(columns)
    by_name = {(fold(c.table), fold(c.name)): c for c in columns}
    pairs = []
    for column in columns:
        if column.references is not None:
            other = by_name.get((fold(column.references[0]), fold(column.references[1])))
            if other is not None:
                pairs.append((column, other))
    return pairs


class SchemaReader:
    """Reads and remembers described databases by file."""

    def __init__(self, example_values: int) -> None:
        self._example_values = example_values
        self._cache: dict[str, Described] = {}

    def read(self, database: str) -> Described:
        """Raises DatabaseUnreadable."""
        if database not in self._cache:
            self._cache[database] = self._describe(database)
        return self._cache[database]

    def _describe(self, database: str) -> Described:
        columns = _columns(read_schema(database))
        if not self._example_values:
            return columns
        with closing(connect_readonly(database)) as connection:
            connection.text_factory = bytes
            try:
                return tuple(replace(column, examples=self._examples(connection, column)) for column in columns)
            except sqlite3.Error as error:
                raise DatabaseUnreadable(f"example values of {database} cannot be read: {error}") from error

    def _examples(self, connection: sqlite3.Connection, column: DescribedColumn) -> tuple[str, ...]:
        """() also for a column that cannot be read within READ_STEPS, or only with what this SQLite lacks."""
        if column.view:
            return ()
        name, table = _identifier(column.name), _identifier(column.table)
        # Neither a comparison nor a subquery: both need the column's collation, which this SQLite may lack.
        shown = f"typeof({name}) IN ('integer', 'real', 'text') AND length({name}) <= {MAX_VALUE_CHARS}"
        sql = f"SELECT CASE WHEN {shown} THEN {name} END FROM {table} LIMIT {_SAMPLED_ROWS}"
        limit_steps(connection, READ_STEPS)
        try:
            found = dict.fromkeys(value for (value,) in connection.execute(sql))
        except sqlite3.Error as error:
            if is_own_fault(error):
                return ()
            raise
        literals = {text for value in found if (text := _example(value)) is not None}
        short = [text for text in literals if len(text) <= MAX_VALUE_CHARS]
        drawn = sorted(short, key=lambda text: (zlib.crc32(text.encode()), text))[: self._example_values]
        return tuple(sorted(drawn))


def _columns(schema: DatabaseSchema) -> Described:
    columns: list[DescribedColumn] = []
    targets: set[tuple[str, str]] = set()
    for table in schema.tables:
        references = {fold(key.column): (key.other_table, key.other_column) for key in table.foreign_keys}
        targets.update((fold(a), fold(b)) for a, b in references.values())
        columns.extend(
            DescribedColumn(
                table=table.name,
                name=column.name,
                type=column.type,
                primary_key=column.primary_key,
                references=references.get(fold(column.name)),
                view=table.kind == "view",
            )
            for column in table.columns
        )
    return tuple(replace(c, referenced=(fold(c.table), fold(c.name)) in targets) for c in columns)


def _example(value: int | float | bytes | None) -> str | None:
    """A value of the database, with text as its bytes, as a SQL literal; None where no literal says it in one line."""
    if value is None:
        return None
    if isinstance(value, bytes):
        try:
            text = value.decode()
        except UnicodeDecodeError:
            return None
        # U+FFFD stands where text was damaged already. What cannot be printed would tear a line of the schema apart.
        return literal(text) if text and "\N{REPLACEMENT CHARACTER}" not in text and text.isprintable() else None
    return literal(value) if isfinite(value) else None


def literal(value: int | float | str) -> str:
    """A value as a SQL literal."""
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return repr(value)


def quoted(name: str) -> str:
    """A name as SQL needs it: in back quotes unless it is a plain word that SQLite does not reserve."""
    plain = name.isidentifier() and name.isascii() and name.upper() not in _RESERVED
    return name if plain else _identifier(name)


def _identifier(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"
