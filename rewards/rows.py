"""The rows of one table of a writable copy, each found by a key that no change touches; where a table has none, by all
its values, so that a row that has been changed is not changed again.

Values come and go as they stand in the database: text that is not UTF-8 keeps its bytes. What the schema refuses is
left out, be it by a constraint, by a trigger or because it needs a function, module or collation that this SQLite
lacks. Raises sqlite3.Error for the rest: a damaged file, a full disk, and SQLITE_INTERRUPT when the steps that
limit_steps grants are over.
"""

import sqlite3
from collections.abc import Mapping
from functools import cached_property
from random import Random

from rewards.carriers import Value
from rewards.sql.identifiers import fold, identifier
from rewards.sql.schema import Table, is_own_fault

SAMPLED_ROWS = 10_000
"""Rows among which changes choose."""
MIN_INT, MAX_INT = -(2**63), 2**63 - 1
_DRAWS = 20
"""Tries to meet a free integer key where neither end has one."""
_ROW_IDS = ("rowid", "_rowid_", "oid")

Key = tuple[Value, ...]


class RawText(bytes):
    """Text that is not UTF-8."""


def text_factory(raw: bytes) -> str | RawText:
    """For connections whose text goes back to the database."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return RawText(raw)


class Rows:
    """Reads, changes and adds rows. The connection's text_factory must be the one above."""

    def __init__(self, connection: sqlite3.Connection, table: Table) -> None:
        self.table = table
        self._connection = connection
        self._name = identifier(table.name)
        self._key = _key(table)
        self._utf8 = connection.execute("PRAGMA encoding").fetchone()[0] == "UTF-8"

    @cached_property
    def keys(self) -> list[Key]:
        """Those of the first rows, when first asked for."""
        key = ", ".join(self._key)
        return self._connection.execute(
            f"SELECT {key} FROM {self._name} ORDER BY {key} LIMIT {SAMPLED_ROWS}"
        ).fetchall()

    def read(self, key: Key, columns: list[str]) -> tuple[Value, ...] | None:
        """None for a row that a trigger has removed meanwhile, or a change where the key is all columns."""
        listed = ", ".join(map(identifier, columns))
        found: tuple[Value, ...] | None = self._connection.execute(
            f"SELECT {listed} FROM {self._name} WHERE {self._where(key)}", key
        ).fetchone()
        return found

    def update(self, key: Key, column: str, value: Value) -> None:
        sql = f"UPDATE OR IGNORE {self._name} SET {identifier(column)} = {_mark(value)} WHERE {self._where(key)}"
        self._attempt(sql, (value, *key))

    def insert(self, values: Mapping[str, Value]) -> None:
        listed, marks = ", ".join(map(identifier, values)), ", ".join(map(_mark, values.values()))
        self._attempt(f"INSERT OR IGNORE INTO {self._name} ({listed}) VALUES ({marks})", tuple(values.values()))

    def fresh_key(self, column: str, value: Value, rng: Random) -> Value:
        """A value like the given one that the column most likely does not hold."""
        if isinstance(value, bytes):
            return type(value)(value + str(rng.randrange(10**6)).encode())
        if isinstance(value, str):
            return f"{value}{rng.randrange(10**6)}"
        name = identifier(column)
        lowest, highest = (
            self._connection.execute(f"SELECT {extreme}({name}) FROM {self._name}").fetchone()[0]
            for extreme in ("min", "max")
        )
        if isinstance(highest, float) or isinstance(highest, int) and highest < MAX_INT:
            return highest + 1
        if isinstance(lowest, int) and lowest > MIN_INT:
            return lowest - 1
        taken = f"SELECT 1 FROM {self._name} WHERE {name} = ?"
        draws = (rng.randint(MIN_INT, MAX_INT) for _ in range(_DRAWS))
        free = (number for number in draws if self._connection.execute(taken, (number,)).fetchone() is None)
        return next(free, value)

    def _where(self, key: Key) -> str:
        return " AND ".join(f"{name} IS {_mark(value)}" for name, value in zip(self._key, key, strict=True))

    def _attempt(self, sql: str, values: tuple[Value, ...]) -> None:
        if not self._utf8 and any(isinstance(value, RawText) for value in values):
            return  # SQLite made these bytes from UTF-16 that is damaged: there is no way back
        try:
            self._connection.execute(sql, values)
        except sqlite3.IntegrityError:
            return  # a constraint that OR IGNORE does not cover (a trigger, STRICT)
        except sqlite3.Error as error:
            if not is_own_fault(error) or error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
                raise


def _key(table: Table) -> tuple[str, ...]:
    """What names one row: the row id, under a name that no column has taken, else the primary key, else all columns,
    which rows that are equal share."""
    taken = {fold(column.name) for column in table.columns}
    free = [name for name in _ROW_IDS if name not in taken]
    if free and not table.without_rowid:
        return (free[0],)
    primary = [column.name for column in table.columns if column.primary_key]
    return tuple(map(identifier, primary or [column.name for column in table.columns]))


def _mark(value: Value) -> str:
    return "CAST(? AS TEXT)" if isinstance(value, RawText) else "?"
