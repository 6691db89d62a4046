"""Whether a database calls texts equal that differ: what then becomes one of them hangs on the order of rows."""

import sqlite3
from contextlib import closing

from rewards.sql.cache import BoundedCache
from rewards.sql.content import content_key
from rewards.sql.schema import DatabaseUnreadable, connect_readonly

_known: BoundedCache[str, bool] = BoundedCache(1000)
"""By database content."""


def collates(database: str) -> bool:
    """Whether a declaration of the database names a collation; False where it cannot be read, since then no query
    runs on it."""
    try:
        key = content_key(database)
        known = _known.get(key)
        if known is None:
            known = _read(database)
            _known.put(key, known)
        return known
    except DatabaseUnreadable:
        return False


def _read(database: str) -> bool:
    with closing(connect_readonly(database)) as connection:
        try:
            found = connection.execute(
                "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE instr(lower(CAST(sql AS BLOB)), 'collate') > 0)"
            )
            return bool(found.fetchone()[0])
        except sqlite3.Error:
            return False
