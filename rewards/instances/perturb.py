"""Changes a copy of a database so that near misses of its gold queries show: the raw material of new instances.

Five kinds of change, each seeded and each on a sample of rows: boundary rows (existing rows again, with a literal of a
gold query or its neighbour in the compared column), duplicates (existing rows under a new key), NULLs (in columns that
allow them), ties (one row's value given to others, outside the columns that golds sort by before a LIMIT) and perturbed
values (numbers moved by one, values exchanged between rows). Rows stay consistent: keys stay unique, foreign keys keep
pointing at rows that exist, and a change that the schema refuses is left out, be it by a constraint, by a trigger or
because it needs a function, module or collation that this SQLite lacks. Generated columns, views and virtual tables are
never written; a full-text index over a changed table is made anew. The work on each table is bounded in VM
instructions, since a trigger may never end. The original file is only read.
"""

import random
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from sqlglot import exp

from conf.errors import QuorumError
from rewards.carriers import Value
from rewards.rows import MAX_INT, MIN_INT, Key, Rows, text_factory
from rewards.sql.identifiers import fold, identifier
from rewards.sql.parse import ParseFailure, parse_query
from rewards.sql.schema import DatabaseSchema, Table, connect_readonly, is_own_fault, limit_steps, read_schema

TABLE_STEPS = 50_000_000
"""VM instructions for all changes of one table: seconds. A change that runs out of them is undone and is the last."""
REBUILD_STEPS = 1_000_000_000
"""The same for one full-text index, of which each row takes some hundred."""
MAX_VALUE_BYTES = 100_000_000
"""Longest value that a trigger may make."""
_FULL_TEXT = re.compile(r"\s*CREATE\s+VIRTUAL\s+TABLE\b.*\bUSING\s+fts[345]\b", re.IGNORECASE | re.DOTALL)


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


class InstanceImpossible(QuorumError):
    """A database cannot be changed and stay consistent."""


def make_instance(source: str, target: Path, *, hints: Hints, rows: int, seed: int) -> None:
    """Writes a changed copy of `source` to `target`. Raises DatabaseUnreadable, InstanceImpossible, and sqlite3.Error
    when it cannot be written."""
    with closing(connect_readonly(source)) as original, closing(sqlite3.connect(target)) as copy:
        original.backup(copy)
        copy.execute("PRAGMA journal_mode=DELETE")
        # Rows are kept consistent by hand; ON would refuse old faults of the data.
        copy.execute("PRAGMA foreign_keys=OFF")
        copy.execute("PRAGMA synchronous=OFF")
        copy.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES)
        copy.text_factory = text_factory
        schema = read_schema(source)
        changer = _Changer(copy, schema, hints, rows, random.Random(seed))
        for table in schema.tables:
            if table.kind == "table":
                changer.change(table)
        _rebuild_full_text(copy)


def _rebuild_full_text(copy: sqlite3.Connection) -> None:
    """Makes anew each index over the rows of another table: those have changed, and triggers need not have followed.

    Raises InstanceImpossible.
    """
    listed = copy.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'").fetchall()
    texts = {name: sql for name, sql in listed if isinstance(name, str) and isinstance(sql, str)}
    held = {fold(name) for name in texts}
    for name, sql in texts.items():
        if not _FULL_TEXT.match(sql) or fold(name) + "_content" in held:  # the second keeps its text itself
            continue
        limit_steps(copy, REBUILD_STEPS)
        try:
            copy.execute(f"INSERT INTO {identifier(name)}({identifier(name)}) VALUES ('rebuild')")
            copy.commit()
        except sqlite3.Error as error:
            copy.rollback()
            if not is_own_fault(error):
                raise
            if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
                reason = f"the full-text index {name} takes more than {REBUILD_STEPS} VM instructions to make"
                raise InstanceImpossible(reason) from error
            # An index over no table has nothing to be made from; one whose tokenizer is absent answers no query.


class _Changer:
    """The kinds of change, on one open copy."""

    def __init__(
        self, connection: sqlite3.Connection, schema: DatabaseSchema, hints: Hints, rows: int, rng: random.Random
    ) -> None:
        self._schema = schema
        self._connection = connection
        self._hints = hints
        self._rows = rows
        self._rng = rng

    def change(self, table: Table) -> None:
        """One plan on one table. Raises sqlite3.Error where the file is damaged or cannot be written."""
        limit_steps(self._connection, TABLE_STEPS)
        for change in self._plan():
            try:
                change(Rows(self._connection, table))
                self._connection.commit()
            except sqlite3.Error as error:
                self._connection.rollback()
                if not is_own_fault(error):
                    raise
                return

    def _plan(self) -> list[Callable[[Rows], None]]:
        """Boundary rows always, and last; the other kinds each with even odds, so that instances differ in kind."""
        optional = [self._duplicates, self._nulls, self._ties, self._exchange, self._shift]
        return [*(change for change in optional if self._rng.random() < 0.5), self._boundaries]

    def _boundaries(self, rows: Rows) -> None:
        for column in self._free_columns(rows.table):
            for literal in self._sampled(self._hints.boundaries.get(column.lower(), ()), 6):
                for value in _neighbourhood(literal):
                    for key in self._sample(rows, 1):
                        self._insert_like(rows, key, {column: value})

    def _duplicates(self, rows: Rows) -> None:
        for key in self._sample(rows, self._rows // 4):
            self._insert_like(rows, key, {})

    def _nulls(self, rows: Rows) -> None:
        for column in self._free_columns(rows.table):
            for key in self._sample(rows, max(1, self._rows // 20)):
                rows.update(key, column, None)

    def _ties(self, rows: Rows) -> None:
        for column in self._free_columns(rows.table):
            if column.lower() not in self._hints.sorted_columns:
                for key, value in self._tied(rows, column):
                    rows.update(key, column, value)

    def _tied(self, rows: Rows, column: str) -> Iterator[tuple[Key, Value]]:
        chosen = self._sample(rows, max(2, self._rows // 10))
        for key in chosen[1:]:
            found = rows.read(chosen[0], [column])
            if found is not None:
                yield key, found[0]

    def _exchange(self, rows: Rows) -> None:
        for column in self._free_columns(rows.table):
            chosen = self._sample(rows, self._rows // 4)
            found = [(key, row[0]) for key in chosen if (row := rows.read(key, [column])) is not None]
            for (key, _), (_, value) in zip(found, found[1:] + found[:1], strict=True):
                rows.update(key, column, value)

    def _shift(self, rows: Rows) -> None:
        for column in self._free_columns(rows.table):
            for key in self._sample(rows, self._rows // 4):
                for value in rows.read(key, [column]) or ():
                    if isinstance(value, int | float) and abs(value) < 2**53:
                        rows.update(key, column, value + self._rng.choice((-1, 1)))

    def _free_columns(self, table: Table) -> list[str]:
        """Columns that can be written, are no key and refer to none."""
        keys = {fold(key.column) for key in table.foreign_keys} | {
            fold(c.name) for c in table.columns if c.primary_key or c.generated
        }
        referred = {
            fold(key.other_column)
            for other in self._schema.tables
            for key in other.foreign_keys
            if fold(key.other_table) == fold(table.name)
        }
        return [c.name for c in table.columns if fold(c.name) not in keys | referred]

    def _sample(self, rows: Rows, count: int) -> list[Key]:
        return self._sampled(rows.keys, count)

    def _sampled(self, items: Sequence, count: int) -> list:
        return self._rng.sample(list(items), min(count, len(items)))

    def _insert_like(self, rows: Rows, key: Key, changes: dict[str, Value]) -> None:
        """A row again, with a key of its own and some values changed."""
        names = [column.name for column in rows.table.columns if not column.generated]
        row = rows.read(key, names)
        if row is None:
            return
        values = dict(zip(names, row, strict=True)) | changes
        foreign = {fold(key.column) for key in rows.table.foreign_keys}
        own = [c.name for c in rows.table.columns if c.primary_key and fold(c.name) not in foreign]
        for name in own[:1]:
            values[name] = rows.fresh_key(name, values[name], self._rng)
        rows.insert(values)


def _neighbourhood(literal: int | float | str) -> list[int | float | str]:
    """The literal itself and what lies just beside it, as far as SQLite can hold it."""
    if isinstance(literal, str):
        return [literal, literal.swapcase(), literal + "x"]
    return [value for value in (literal, literal - 1, literal + 1) if _fits(value)]


def _literal(node: exp.Literal) -> int | float | str | None:
    """As SQLite reads it; None for what no row need hold: an empty pattern, half a surrogate pair, infinity."""
    if node.is_string:
        text = node.name.strip("%")
        return text if text and _encodable(text) else None
    try:
        number: int | float = int(node.name)
        if not _fits(number):
            number = float(number)
    except (ValueError, OverflowError):  # no whole number, or one of more digits than Python reads
        try:
            number = float(node.name)
        except ValueError:
            return None
    return number if isfinite(number) else None


def _fits(value: int | float) -> bool:
    return isinstance(value, float) or MIN_INT <= value <= MAX_INT


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
