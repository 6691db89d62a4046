"""A database's schema as the prompts, the atomic component and the memory gate see it.

Reads on a read-only connection; never writes. Columns keep the order and spelling of their CREATE TABLE.
"""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from rewards.sql.snapshot import DatabaseUnreadable, readable, readonly_uri

__all__ = ["Column", "DatabaseSchema", "DatabaseUnreadable", "ForeignKey", "Table", "connect_readonly", "read_schema"]


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


def connect_readonly(path: str | Path) -> sqlite3.Connection:
    """A read-only, immutable connection; rows in a write-ahead log are seen (snapshot.py). Raises
    DatabaseUnreadable."""
    file = readable(path)
    try:
        connection = sqlite3.connect(readonly_uri(file), uri=True)
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        raise DatabaseUnreadable(f"{path} cannot be read as a SQLite database: {error}") from error
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
    return connection


def read_schema(path: str | Path) -> DatabaseSchema:
    """Tables, columns, primary and foreign keys of one file. Raises DatabaseUnreadable."""
    with closing(connect_readonly(path)) as connection:
        try:
            names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            tables = [_table(connection, name) for (name,) in names if not name.startswith("sqlite_")]
        except sqlite3.Error as error:
            raise DatabaseUnreadable(f"the schema of {path} cannot be read: {error}") from error
    return DatabaseSchema(tables=tuple(tables))


def _table(connection: sqlite3.Connection, name: str) -> Table:
    columns = connection.execute("SELECT name, type, pk FROM pragma_table_info(?)", (name,)).fetchall()
    keys = connection.execute('SELECT "from", "table", "to" FROM pragma_foreign_key_list(?)', (name,)).fetchall()
    return Table(
        name=name,
        columns=tuple(Column(name=c, type=(t or "").upper(), primary_key=bool(pk)) for c, t, pk in columns),
        foreign_keys=tuple(ForeignKey(column=c, other_table=t, other_column=other or c) for c, t, other in keys),
    )
