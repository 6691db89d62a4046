"""A database's schema as the prompts, the atomic component and the memory gate see it.

Reads on a read-only connection; never writes. Columns keep the order and spelling of their CREATE TABLE. Left out are
relations that this SQLite cannot read (a module or tokenizer is absent, a view names what does not exist), names that
are not UTF-8, and what SQLite keeps for itself (sqlite_sequence, the shadow tables of full-text and R-tree indexes).
Every read is bounded in VM instructions, because a database may hold SQL that never ends, and in what SQLite looks up
for it, because views that read views twice double the work of compiling. Needs SQLite 3.37.
"""

import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Literal

from rewards.sql.identifiers import fold, identifier
from rewards.sql.snapshot import DatabaseUnreadable as DatabaseUnreadable
from rewards.sql.snapshot import readable, readonly_uri

READ_STEPS = 5_000_000
"""VM instructions of one read: tenths of a second. A column's example values take some ten thousand."""
_STEP_INTERVAL = 1000
READ_NAMES = 10_000
"""Columns, tables and functions that SQLite may look up to compile one statement: five times the widest view."""
_OWN_FAULTS = frozenset(
    (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_AUTH)  # of _limit_names
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    name: str
    type: str
    """Declared type in upper case; '' when none is declared."""
    primary_key: bool = False
    generated: bool = False
    """Computed from other columns: it can be read, never written."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ForeignKey:
    """One column of a key. A key whose statement names no columns of the other table means its primary key."""

    column: str
    other_table: str
    other_column: str


Kind = Literal["table", "view", "virtual"]
_KINDS: dict[str, Kind] = {"table": "table", "view": "view", "virtual": "virtual"}
_HIDDEN = 1
_GENERATED = (2, 3)
"""What table_xinfo says of a virtual table's hidden column, and of virtual and stored generated columns."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A relation that queries can read: a table, a view or a virtual table."""

    name: str
    columns: tuple[Column, ...]
    foreign_keys: tuple[ForeignKey, ...] = ()
    kind: Kind = "table"
    without_rowid: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class DatabaseSchema:
    tables: tuple[Table, ...]
    """In the order in which they were made, views after all others."""


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


def limit_steps(connection: sqlite3.Connection, steps: int) -> None:
    """From now on, what runs on the connection when another `steps` VM instructions are over is interrupted
    (SQLITE_INTERRUPT)."""
    calls, limit = count(1), max(1, steps // _STEP_INTERVAL)
    connection.set_progress_handler(lambda: next(calls) % limit == 0, _STEP_INTERVAL)


def _limit_names(connection: sqlite3.Connection) -> None:
    """From now on, a statement that needs more than READ_NAMES names is refused (SQLITE_AUTH). VM instructions do not
    bound compiling: a view on fifteen others, each of which reads the one before twice, takes SQLite minutes."""
    calls = count(1)
    allowed, refused = sqlite3.SQLITE_OK, sqlite3.SQLITE_DENY
    connection.set_authorizer(lambda *_: allowed if next(calls) <= READ_NAMES else refused)


def is_own_fault(error: sqlite3.Error) -> bool:
    """Whether an error lies in what the database defines (an absent module, function or collation, SQL that never
    ends, a virtual table's own damage), so that the rest of the database can be used."""
    code: int = vars(error).get("sqlite_errorcode", sqlite3.SQLITE_OK)
    return code & 0xFF in _OWN_FAULTS or code == sqlite3.SQLITE_CORRUPT_VTAB


def read_schema(path: str | Path) -> DatabaseSchema:
    """Relations, columns, primary and foreign keys of one file. Raises DatabaseUnreadable."""
    with closing(connect_readonly(path)) as connection:
        try:
            return DatabaseSchema(tables=_relations(connection))
        except sqlite3.Error as error:
            raise DatabaseUnreadable(f"the schema of {path} cannot be read: {error}") from error


def _relations(connection: sqlite3.Connection) -> tuple[Table, ...]:
    connection.text_factory = bytes
    limit_steps(connection, READ_STEPS)
    _limit_names(connection)  # what lists the tables also compiles every view
    listed = connection.execute("SELECT name, type, wr FROM pragma_table_list WHERE schema = 'main'").fetchall()
    facts = {name: (kind.decode(), bool(without_rowid)) for name, kind, without_rowid in listed}
    connection.set_authorizer(None)
    made = connection.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')").fetchall()
    relations: list[Table] = []
    primary_keys: dict[str, tuple[str, ...]] = {}
    for (raw,) in made:
        name = _decoded(raw)
        kind, without_rowid = facts.get(raw, ("", False))
        if name is None or kind not in _KINDS or fold(name).startswith("sqlite_"):
            continue
        try:
            if kind == "view":
                _compile(connection, name)
            columns, primary_key = _columns(connection, name)
        except sqlite3.Error as error:
            if not is_own_fault(error):
                raise
            continue
        if columns:
            primary_keys[fold(name)] = primary_key
            relations.append(Table(name=name, columns=columns, kind=_KINDS[kind], without_rowid=without_rowid))
    relations.sort(key=lambda relation: relation.kind == "view")
    parents = {fold(relation.name): relation for relation in relations}
    return tuple(
        replace(relation, foreign_keys=_foreign_keys(connection, relation.name, parents, primary_keys))
        for relation in relations
    )


def _compile(connection: sqlite3.Connection, view: str) -> None:
    """A view may need more than its columns show; EXPLAIN compiles its query and runs nothing."""
    _limit_names(connection)
    try:
        connection.execute(f"EXPLAIN SELECT * FROM {identifier(view)}").close()
    finally:
        connection.set_authorizer(None)


def _columns(connection: sqlite3.Connection, table: str) -> tuple[tuple[Column, ...], tuple[str, ...]]:
    """The columns that SELECT * shows, and the primary key in its own order."""
    limit_steps(connection, READ_STEPS)
    found = connection.execute("SELECT name, type, pk, hidden FROM pragma_table_xinfo(?)", (table,)).fetchall()
    columns: list[Column] = []
    key: dict[int, str] = {}
    for raw_name, raw_type, place, hidden in found:
        name = _decoded(raw_name)
        if name is None or hidden == _HIDDEN:
            continue
        declared = " ".join((_decoded(raw_type or b"") or "").upper().split())
        columns.append(Column(name=name, type=declared, primary_key=bool(place), generated=hidden in _GENERATED))
        if place:
            key[place] = name
    return tuple(columns), tuple(key[place] for place in sorted(key))


def _foreign_keys(
    connection: sqlite3.Connection, table: str, parents: Mapping[str, Table], primary_keys: Mapping[str, Sequence[str]]
) -> tuple[ForeignKey, ...]:
    """A key that names no columns of its parent means the parent's primary key; it is none where the parent is missing
    or its primary key has another number of columns."""
    listed = 'SELECT id, seq, "from", "table", "to" FROM pragma_foreign_key_list(?)'
    found = connection.execute(listed, (table,)).fetchall()
    sizes = Counter(row[0] for row in found)
    keys: list[ForeignKey] = []
    for number, position, *raw_names in found:
        column, other, other_column = (None if raw is None else _decoded(raw) for raw in raw_names)
        if column is None or other is None:
            continue
        parent = parents.get(fold(other))
        if raw_names[2] is None:
            primary = primary_keys.get(fold(other), ())
            other_column = primary[position] if len(primary) == sizes[number] else None
        if other_column is not None:
            spelled = other if parent is None else parent.name
            keys.append(ForeignKey(column=column, other_table=spelled, other_column=other_column))
    return tuple(keys)


def _decoded(raw: bytes) -> str | None:
    """None for text that is not UTF-8: no query can name it."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None
