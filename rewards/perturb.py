"""Changes a copy of a database so that near misses of its gold queries show: the raw material of new instances.

Five kinds of change, each seeded and each on a sample of rows: boundary rows (existing rows again, with a literal of a
gold query or its neighbour in the compared column), duplicates (existing rows under a new key), NULLs (in columns that
allow them), ties (one row's value given to others, outside the columns that golds sort by before a LIMIT) and perturbed
values (numbers moved by one, values exchanged between rows). Rows stay consistent: keys stay unique, foreign keys keep
pointing at rows that exist, and a change that a constraint of the schema refuses is left out. The original file is only
read.
"""

import random
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from sqlglot import exp

from rewards.carriers import Value
from rewards.sql.parse import ParseFailure, parse_query
from rewards.sql.schema import DatabaseSchema, Table, connect_readonly, read_schema


@dataclass(frozen=True, kw_only=True, slots=True)
class Hints:
    """What the gold queries say about where to change."""

    boundaries: dict[str, tuple[int | float | str, ...]]
    """Literals by lower-case name of the column they are compared with."""
    sorted_columns: frozenset[str]
    """Lower-case names of columns that a query sorts by before a LIMIT: ties there would make its answer ambiguous."""


def read_hints(sqls: Iterable[str]) -> Hints:
    """Collects hints from queries; those that cannot be parsed give none."""
    boundaries: dict[str, dict[int | float | str, None]] = {}
    sorted_columns: set[str] = set()
    for sql in sqls:
        try:
            tree = parse_query(sql)
        except ParseFailure:
            continue
        for comparison in tree.find_all(exp.Predicate, exp.Between, exp.In):
            values = [_literal(node) for node in comparison.find_all(exp.Literal)]
            for column in comparison.find_all(exp.Column):
                known = boundaries.setdefault(column.name.lower(), {})
                known.update(dict.fromkeys(value for value in values if value is not None))
        for select in tree.find_all(exp.Select):
            if select.args.get("limit") and select.args.get("order"):
                sorted_columns |= {c.name.lower() for c in select.args["order"].find_all(exp.Column)}
    return Hints(
        boundaries={name: tuple(values) for name, values in boundaries.items()},
        sorted_columns=frozenset(sorted_columns),
    )


def make_instance(source: str, target: Path, *, hints: Hints, rows: int, seed: int) -> None:
    """Writes a changed copy of `source` to `target`. Raises DatabaseUnreadable, and sqlite3.Error when it cannot be
    written."""
    with closing(connect_readonly(source)) as original, closing(sqlite3.connect(target)) as copy:
        original.backup(copy)
        copy.execute("PRAGMA journal_mode=DELETE")
        copy.execute(
            "PRAGMA foreign_keys=OFF"
        )  # rows are kept consistent by hand; ON would refuse old faults of the data
        changer = _Changer(copy, read_schema(source), hints, rows, random.Random(seed))
        for table in changer.schema.tables:
            for change in changer.plan():
                change(table)
        copy.commit()
        copy.execute("VACUUM")


class _Changer:
    """The kinds of change, on one open copy."""

    def __init__(
        self, connection: sqlite3.Connection, schema: DatabaseSchema, hints: Hints, rows: int, rng: random.Random
    ) -> None:
        self.schema = schema
        self._connection = connection
        self._hints = hints
        self._rows = rows
        self._rng = rng

    def plan(self) -> list[Callable[[Table], None]]:
        """Boundary rows always, and last; the other kinds each with even odds, so that instances differ in kind."""
        optional = [self._duplicates, self._nulls, self._ties, self._exchange, self._shift]
        return [*(change for change in optional if self._rng.random() < 0.5), self._boundaries]

    def _boundaries(self, table: Table) -> None:
        for column in self._free_columns(table):
            for literal in self._sampled(self._hints.boundaries.get(column.lower(), ()), 6):
                for value in _neighbourhood(literal):
                    for rowid in self._sample(table, 1):
                        self._insert_like(table, rowid, {column: value})

    def _duplicates(self, table: Table) -> None:
        for rowid in self._sample(table, self._rows // 4):
            self._insert_like(table, rowid, {})

    def _nulls(self, table: Table) -> None:
        for column in self._free_columns(table):
            for rowid in self._sample(table, max(1, self._rows // 20)):
                self._update(table, column, rowid, None)

    def _ties(self, table: Table) -> None:
        for column in self._free_columns(table):
            if column.lower() not in self._hints.sorted_columns:
                chosen = self._sample(table, max(2, self._rows // 10))
                for rowid in chosen[1:]:
                    self._update(table, column, rowid, self._value(table, column, chosen[0]))

    def _exchange(self, table: Table) -> None:
        for column in self._free_columns(table):
            chosen = self._sample(table, self._rows // 4)
            values = [self._value(table, column, rowid) for rowid in chosen]
            for rowid, value in zip(chosen, values[1:] + values[:1], strict=True):
                self._update(table, column, rowid, value)

    def _shift(self, table: Table) -> None:
        for column in self._free_columns(table):
            for rowid in self._sample(table, self._rows // 4):
                value = self._value(table, column, rowid)
                if isinstance(value, int | float) and abs(value) < 2**53:
                    self._update(table, column, rowid, value + self._rng.choice((-1, 1)))

    def _free_columns(self, table: Table) -> list[str]:
        """Columns that are no key and refer to none."""
        keys = {key.column.lower() for key in table.foreign_keys} | {
            c.name.lower() for c in table.columns if c.primary_key
        }
        referred = {
            key.other_column.lower()
            for other in self.schema.tables
            for key in other.foreign_keys
            if key.other_table.lower() == table.name.lower()
        }
        return [c.name for c in table.columns if c.name.lower() not in keys | referred]

    def _sample(self, table: Table, count: int) -> list[int]:
        """Row ids; none of a table WITHOUT ROWID."""
        try:
            found = self._connection.execute(
                f"SELECT rowid FROM {_quoted(table.name)} ORDER BY rowid LIMIT 10000"
            ).fetchall()
        except sqlite3.OperationalError:
            return []
        return [row[0] for row in self._sampled(found, count)]

    def _sampled(self, items: Sequence, count: int) -> list:
        return self._rng.sample(list(items), min(count, len(items)))

    def _value(self, table: Table, column: str, rowid: int) -> Value:
        sql = f"SELECT {_quoted(column)} FROM {_quoted(table.name)} WHERE rowid = ?"
        value: Value = self._connection.execute(sql, (rowid,)).fetchone()[0]
        return value

    def _update(self, table: Table, column: str, rowid: int, value: Value) -> None:
        sql = f"UPDATE OR IGNORE {_quoted(table.name)} SET {_quoted(column)} = ? WHERE rowid = ?"
        self._attempt(sql, (value, rowid))

    def _insert_like(self, table: Table, rowid: int, changes: dict[str, Value]) -> None:
        """A row again, with a key of its own and some values changed."""
        names = [column.name for column in table.columns]
        listed = ", ".join(map(_quoted, names))
        row = self._connection.execute(
            f"SELECT {listed} FROM {_quoted(table.name)} WHERE rowid = ?", (rowid,)
        ).fetchone()
        values = dict(zip(names, row, strict=True)) | changes
        keys = [column.name for column in table.columns if column.primary_key]
        foreign = {key.column.lower() for key in table.foreign_keys}
        for name in [key for key in keys if key.lower() not in foreign][:1]:
            values[name] = self._fresh_key(table, name, values[name])
        marks = ", ".join("?" * len(names))
        self._attempt(
            f"INSERT OR IGNORE INTO {_quoted(table.name)} ({listed}) VALUES ({marks})", tuple(values.values())
        )

    def _fresh_key(self, table: Table, column: str, value: Value) -> Value:
        if isinstance(value, str):
            return f"{value}{self._rng.randrange(10**6)}"
        highest = self._connection.execute(f"SELECT max({_quoted(column)}) FROM {_quoted(table.name)}").fetchone()[0]
        return highest + 1 if isinstance(highest, int | float) else value

    def _attempt(self, sql: str, values: tuple[Value, ...]) -> None:
        try:
            self._connection.execute(sql, values)
        except sqlite3.IntegrityError:
            return  # a constraint that OR IGNORE does not cover (a trigger, STRICT): the row stays as it was


def _neighbourhood(literal: int | float | str) -> list[int | float | str]:
    """The literal itself and what lies just beside it."""
    if isinstance(literal, str):
        return [literal, literal.swapcase(), literal + "x"]
    return [literal, literal - 1, literal + 1]


def _literal(node: exp.Literal) -> int | float | str | None:
    if node.is_string:
        return node.name.strip("%") or None
    try:
        return int(node.name)
    except ValueError:
        pass
    try:
        return float(node.name)
    except ValueError:
        return None


def _quoted(name: str) -> str:
    escaped = name.replace('"', '""')
    return f'"{escaped}"'
