"""Names a database by its content, so that caches outlive copies and notice changes."""

from functools import lru_cache
from hashlib import blake2b, file_digest

from rewards.sql.snapshot import DatabaseUnreadable, Stamp, located


def content_key(path: str) -> str:
    """Digest of the file's bytes and of the log or journal beside it; read again only when their sizes, times or
    inodes change. Raises DatabaseUnreadable."""
    real, (database, wal, journal) = located(path)
    key = _digest(real, database)
    for suffix, stamp in (("-wal", wal), ("-journal", journal)):
        if stamp is not None:
            key += suffix + _digest(real + suffix, stamp)
    return key


@lru_cache(maxsize=4096)
def _digest(path: str, stamp: Stamp) -> str:
    """`stamp` is part of the cache's key."""
    try:
        with open(path, "rb") as file:
            return file_digest(file, lambda: blake2b(digest_size=16)).hexdigest()
    except OSError as error:
        raise DatabaseUnreadable(f"no database file at {path} ({error.strerror})") from error
