"""The child's open databases: immutable, read-only, behind an authorizer."""

import os
import sqlite3
from collections import OrderedDict

from rewards.sql.sandbox.functions import Functions
from rewards.sql.sandbox.verdict import DENIED_FUNCTIONS

OPEN_CONNECTIONS = 24
ALLOWED_ACTIONS = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE)


class DatabaseBroken(Exception):
    """The file is missing, unreadable or damaged: nothing the query did."""


def _authorize(action: int, first: str | None, second: str | None, database: str | None, trigger: str | None) -> int:
    if action in ALLOWED_ACTIONS:
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_FUNCTION and (second or "").lower() not in DENIED_FUNCTIONS:
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY


def _declare_virtual_tables(connection: sqlite3.Connection) -> None:
    """Touch virtual tables and table-valued functions: the authorizer takes their declaration for a CREATE TABLE."""
    sources = "SELECT name FROM sqlite_master WHERE type = 'table' AND sql LIKE 'CREATE VIRTUAL%'"
    tables = [row[0] for row in connection.execute(sources)]
    for source in ("json_each('[]')", "json_tree('[]')", *(f'"{name}"' for name in tables)):
        try:
            connection.execute(f"SELECT * FROM {source} LIMIT 0").close()
        except sqlite3.OperationalError:
            continue  # a module that this SQLite lacks: queries on it get the same error


class Connections:
    """Open read-only connections, least recently used first out; a file that changed on disk is opened anew."""

    def __init__(self, functions: Functions) -> None:
        self._functions = functions
        self._open: OrderedDict[tuple[str, bool, bool], tuple[tuple[int, ...], sqlite3.Connection]] = OrderedDict()

    def get(self, path: str, *, reverse: bool, native: bool) -> sqlite3.Connection:
        """`reverse`: unordered rows come the other way round; `native`: see Functions.install. Raises
        DatabaseBroken."""
        try:
            status = os.stat(path)
        except OSError as error:
            raise DatabaseBroken(f"no database file at {path} ({error.strerror})") from error
        stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        key = (path, reverse, native)
        known = self._open.get(key)
        if known is not None and known[0] == stamp:
            self._open.move_to_end(key)
            return known[1]
        if known is not None:
            known[1].close()
        connection = self._connect(path, reverse=reverse, native=native)
        self._open[key] = (stamp, connection)
        self._open.move_to_end(key)
        while len(self._open) > OPEN_CONNECTIONS:
            self._open.popitem(last=False)[1][1].close()
        return connection

    def close_all(self) -> None:
        while self._open:
            self._open.popitem()[1][1].close()

    def _connect(self, path: str, *, reverse: bool, native: bool) -> sqlite3.Connection:
        quoted = path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
        try:
            connection = sqlite3.connect(
                f"file:{quoted}?mode=ro&immutable=1", uri=True, isolation_level=None, cached_statements=0
            )
            connection.execute("PRAGMA temp_store=MEMORY")
            connection.execute("PRAGMA cache_size=-1000")
            connection.execute("PRAGMA query_only=ON")
            if reverse:
                connection.execute("PRAGMA reverse_unordered_selects=ON")
            _declare_virtual_tables(connection)
        except sqlite3.Error as error:
            raise DatabaseBroken(f"{path} cannot be read as a SQLite database: {error}") from error
        self._functions.install(connection, native=native)
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 1000)
        connection.setlimit(sqlite3.SQLITE_LIMIT_VDBE_OP, 1_000_000)
        connection.set_authorizer(_authorize)
        return connection
