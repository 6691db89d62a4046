"""Names a database file by its content, so that caches outlive copies and notice changes."""

import os
from functools import lru_cache
from hashlib import blake2b, file_digest

from rewards.sql.schema import DatabaseUnreadable


def content_key(path: str) -> str:
    """Digest of the file's bytes; read again only when its size, time or inode changes. Raises DatabaseUnreadable."""
    try:
        status = os.stat(path)
        return _digest(os.path.abspath(path), status.st_size, status.st_mtime_ns, status.st_ino)
    except OSError as error:
        raise DatabaseUnreadable(f"no database file at {path} ({error.strerror})") from error
    except ValueError as error:  # no path at all: a null character, or half a surrogate pair
        raise DatabaseUnreadable(f"no database file at {path!r} ({error})") from error


@lru_cache(maxsize=4096)
def _digest(path: str, size: int, modified_ns: int, inode: int) -> str:
    with open(path, "rb") as file:
        return file_digest(file, lambda: blake2b(digest_size=16)).hexdigest()
