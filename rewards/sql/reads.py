"""Which columns a query reads, as SQLite resolves its names.

The query is compiled on its database and not run. A column that a view reads inside is the view's affair; a column that
two tables are joined by is read, whether the query names it (ON, USING) or not (NATURAL).
"""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from itertools import count
from typing import Any

from sqlglot import exp

from rewards.sql.identifiers import fold
from rewards.sql.parse import ParseFailure, parse_query
from rewards.sql.schema import READ_NAMES, DatabaseSchema, connect_readonly, read_schema

Read = tuple[str, str]
"""Table and column, folded as SQLite compares names."""


class ColumnsRead:
    """Asks about queries on one database after the other; questions about the same one should follow each other."""

    def __init__(self) -> None:
        self._database = ""
        self._schema = DatabaseSchema(tables=())

    def of(self, database: str, sql: str) -> frozenset[Read] | None:
        """None for a query that this SQLite does not compile. Raises DatabaseUnreadable."""
        if database != self._database:
            self._schema, self._database = read_schema(database), database
        views = {fold(table.name) for table in self._schema.tables if table.kind == "view"}
        found: set[Read] = set()
        with closing(connect_readonly(database)) as connection:
            connection.set_authorizer(_noting(found, views))
            try:
                connection.execute(f"EXPLAIN {sql}").close()
            except (sqlite3.Error, sqlite3.Warning, ValueError):
                return None
        return frozenset(found | self._joined_by(sql))

    def _joined_by(self, sql: str) -> set[Read]:
        """Columns of USING and NATURAL, which SQLite does not tell of."""
        try:
            tree = parse_query(sql)
        except ParseFailure:
            return set()
        joins = list(tree.find_all(exp.Join))
        named = {fold(name.name) for join in joins for name in join.args.get("using") or ()}
        natural = any(str(join.args.get("method") or "").upper() == "NATURAL" for join in joins)
        if not named and not natural:
            return set()
        asked = {fold(table.name) for table in tree.find_all(exp.Table)}
        columns = [
            (fold(t.name), fold(c.name)) for t in self._schema.tables if fold(t.name) in asked for c in t.columns
        ]
        names = [name for _, name in columns]
        return {(t, name) for t, name in columns if name in named or (natural and names.count(name) > 1)}


def _noting(found: set[Read], views: set[str]) -> Callable[..., int]:
    calls = count(1)

    def authorize(action: int, table: Any, column: Any, _: Any, inside: Any) -> int:
        if action == sqlite3.SQLITE_READ and column and (inside is None or fold(inside) not in views):
            found.add((fold(table), fold(column)))
        # Compiling is bounded as in schema.py: views that read views twice double the work.
        return sqlite3.SQLITE_OK if next(calls) <= READ_NAMES else sqlite3.SQLITE_DENY

    return authorize
