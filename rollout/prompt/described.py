"""A database as a prompt describes it: its columns in order, with keys and example values.

Schemas and example values are read once a database file, through read-only connections. Example values are drawn by a
hash of the value: the same file always gives the same prompt.
"""

import sqlite3
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

from rewards.sql.schema import DatabaseUnreadable, connect_readonly, read_schema

MAX_VALUE_CHARS = 40
"""Longer example values are left out: a cut value would teach a wrong literal."""

_RESERVED = frozenset(
    "ADD ALL ALTER AND AS AUTOINCREMENT BETWEEN CASE CHECK COLLATE COMMIT CONSTRAINT CREATE DEFAULT DEFERRABLE DELETE "
    "DISTINCT DROP ELSE ESCAPE EXISTS FOREIGN FROM GROUP HAVING IN INDEX INSERT INTERSECT INTO IS ISNULL JOIN LIMIT "
    "NOT NOTNULL NULL ON OR ORDER PRIMARY REFERENCES SELECT SET TABLE THEN TO TRANSACTION UNION UNIQUE UPDATE USING "
    "VALUES WHEN WHERE".split()
)
"""Words that SQLite refuses as bare names."""

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
    by_name = {(c.table.lower(), c.name.lower()): c for c in columns}
    pairs = []
    for column in columns:
        if column.references is not None:
            other = by_name.get((column.references[0].lower(), column.references[1].lower()))
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
        schema = read_schema(database)
        columns: list[DescribedColumn] = []
        targets: set[tuple[str, str]] = set()
        for table in schema.tables:
            references = {key.column.lower(): (key.other_table, key.other_column) for key in table.foreign_keys}
            targets.update((a.lower(), b.lower()) for a, b in references.values())
            columns.extend(
                DescribedColumn(
                    table=table.name,
                    name=column.name,
                    type=column.type,
                    primary_key=column.primary_key,
                    references=references.get(column.name.lower()),
                )
                for column in table.columns
            )
        connection = connect_readonly(database)
        try:
            return tuple(
                replace(
                    column,
                    referenced=(column.table.lower(), column.name.lower()) in targets,
                    examples=self._examples(connection, column) if self._example_values else (),
                )
                for column in columns
            )
        except sqlite3.Error as error:
            raise DatabaseUnreadable(f"example values of {database} cannot be read: {error}") from error
        finally:
            connection.close()

    def _examples(self, connection: sqlite3.Connection, column: DescribedColumn) -> tuple[str, ...]:
        name, table = _identifier(column.name), _identifier(column.table)
        found = connection.execute(
            f"SELECT DISTINCT value FROM (SELECT {name} AS value FROM {table} LIMIT {_SAMPLED_ROWS})"
            " WHERE typeof(value) IN ('integer', 'real', 'text') AND value <> ''"
        ).fetchall()
        literals = {literal(value) for (value,) in found if not (isinstance(value, str) and _unprintable(value))}
        short = [text for text in literals if len(text) <= MAX_VALUE_CHARS]
        drawn = sorted(short, key=lambda text: (zlib.crc32(text.encode()), text))[: self._example_values]
        return tuple(sorted(drawn))


def _unprintable(value: str) -> bool:
    """Line breaks and the like would tear a line of the schema apart."""
    return not value.isprintable()


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
