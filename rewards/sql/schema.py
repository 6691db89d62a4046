"""A database's schema as the prompts, the atomic component and the memory gate see it.

Reads through sqlite-utils on a read-only connection; never writes. Columns keep the order and spelling of their CREATE
TABLE.
"""

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from sqlite_utils import Database


class DatabaseUnreadable(Exception):
    """The file is missing or is no SQLite database: the infrastructure's fault, never a score."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    name: str
    type: str
    """Declared type in upper case; '' when none is declared."""
    primary_key: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class ForeignKey:
    column: str
    other_table: str
    other_column: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    name: str
    columns: tuple[Column, ...]
    foreign_keys: tuple[ForeignKey, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class DatabaseSchema:
    tables: tuple[Table, ...]

    def sqlglot_mapping(self) -> dict[str, dict[str, str]]:
        """The nested mapping that sqlglot's qualification takes: table -> column -> type."""
        return {t.name: {c.name: c.type or "TEXT" for c in t.columns} for t in self.tables}


def connect_readonly(path: str | Path) -> sqlite3.Connection:
    """A read-only, immutable connection. Raises DatabaseUnreadable."""
    file = Path(path)
    if not file.is_file():
        raise DatabaseUnreadable(f"no database file at {file}")
    try:
        connection = sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        raise DatabaseUnreadable(f"{file} cannot be read as a SQLite database: {error}") from error
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
    return connection


def read_schema(path: str | Path) -> DatabaseSchema:
    """Tables, columns, primary and foreign keys of one file. Raises DatabaseUnreadable."""
    connection = connect_readonly(path)
    try:
        tables = []
        for table in Database(connection).tables:
            if table.name.startswith("sqlite_"):
                continue
            columns = tuple(
                Column(name=c.name, type=(c.type or "").upper(), primary_key=bool(c.is_pk)) for c in table.columns
            )
            keys = tuple(
                ForeignKey(column=row[3], other_table=row[2], other_column=row[4] or row[3])
                for row in connection.execute(f'PRAGMA foreign_key_list("{table.name}")').fetchall()
            )
            tables.append(Table(name=table.name, columns=columns, foreign_keys=keys))
        return DatabaseSchema(tables=tuple(tables))
    finally:
        connection.close()
