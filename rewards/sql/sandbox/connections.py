"""The child's open databases: immutable, read-only, behind an authorizer.

Nothing runs before the limits, the replaced functions and the authorizer stand. What a database makes of its opening (a
module that is absent, a declaration that takes too long) is the database's fault: `DatabaseBroken`.
"""

import os
import sqlite3
from collections import OrderedDict
from urllib.parse import quote

from rewards.sql.identifiers import identifier
from rewards.sql.sandbox.clock import Clock
from rewards.sql.sandbox.functions import Functions
from rewards.sql.sandbox.verdict import DENIED_FUNCTIONS

OPEN_CONNECTIONS = 24
OPENING_STEPS = 5_000_000
"""VM instructions until an opening is given up."""
ALLOWED_ACTIONS = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE)
OPENING_ACTIONS = (sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE)
"""FTS and R-tree tables prepare their writes when they are opened; the file is read-only, so none can run."""
SETTINGS = ("temp_store=MEMORY", "cache_size=-1000", "query_only=ON")
REVERSED = "reverse_unordered_selects=ON"
OPENING_PRAGMAS = frozenset((*(setting.split("=")[0] for setting in (*SETTINGS, REVERSED)), "page_size"))


class DatabaseBroken(Exception):
    """The file is missing, unreadable or damaged: nothing the query did."""


def _authorize(action: int, first: str | None, second: str | None, database: str | None, trigger: str | None) -> int:
    if action in ALLOWED_ACTIONS:
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_FUNCTION and (second or "").lower() not in DENIED_FUNCTIONS:
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_PRAGMA and first == "data_version" and second is None:
        return sqlite3.SQLITE_OK  # FTS5 asks whether its tables have changed
    return sqlite3.SQLITE_DENY


def _authorize_opening(
    action: int, first: str | None, second: str | None, database: str | None, trigger: str | None
) -> int:
    if action in OPENING_ACTIONS or (action == sqlite3.SQLITE_PRAGMA and first in OPENING_PRAGMAS):
        return sqlite3.SQLITE_OK
    return _authorize(action, first, second, database, trigger)


def _declare_virtual_tables(connection: sqlite3.Connection) -> None:
    """Touch virtual tables and table-valued functions: the authorizer takes their declaration for writing."""
    sources = "SELECT name FROM sqlite_master WHERE type = 'table' AND sql LIKE 'CREATE VIRTUAL%'"
    tables = [row[0] for row in connection.execute(sources)]
    for source in ("json_each('[]')", "json_tree('[]')", *map(identifier, tables)):
        try:
            connection.execute(f"SELECT * FROM {source} LIMIT 0").close()
        except sqlite3.Error as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
                raise
            # A module that this SQLite lacks, a declaration that is wrong, damaged contents: queries on it get the
            # same error, and others do not see it.


class Connections:
    """Open read-only connections, least recently used first out; a file that changed on disk is opened anew."""

    def __init__(self, functions: Functions, clock: Clock) -> None:
        self._functions = functions
        self._clock = clock
        self._open: OrderedDict[tuple[str, bool, bool], tuple[tuple[int, ...], sqlite3.Connection]] = OrderedDict()

    def get(self, path: str, *, reverse: bool, native: bool) -> sqlite3.Connection:
        """`reverse`: unordered rows come the other way round; `native`: see Functions.install. Raises
        DatabaseBroken."""
        try:
            status = os.stat(path)
        except OSError as error:
            raise DatabaseBroken(f"no database file at {path} ({error.strerror})") from error
        stamp = (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)
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
        uri = f"file:{quote(os.fsencode(path))}?mode=ro&immutable=1"
        try:
            connection = sqlite3.connect(uri, uri=True, isolation_level=None, cached_statements=0)
            connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
            connection.setlimit(sqlite3.SQLITE_LIMIT_VDBE_OP, 1_000_000)
            self._functions.install(connection, native=native)
            self._clock.install(connection, self._functions.native)
            connection.set_authorizer(_authorize_opening)
            connection.set_progress_handler(lambda: 1, OPENING_STEPS)
            for setting in (*SETTINGS, *((REVERSED,) if reverse else ())):
                connection.execute(f"PRAGMA {setting}")
            _declare_virtual_tables(connection)
        except sqlite3.Error as error:
            raise DatabaseBroken(f"{path} cannot be read as a SQLite database: {error}") from error
        connection.set_authorizer(_authorize)
        return connection
