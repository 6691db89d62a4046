"""A database file as SQLite itself would read it, with the state that stands beside it.

Committed rows may still be in a write-ahead log (`-wal`), and a journal (`-journal`) left by a killed writer must be
rolled back before the file means anything. An immutable connection sees neither. `readable` gives a path that can be
opened immutable: the file itself where nothing stands beside it, else a private copy in which SQLite has taken the log
in and rolled the journal back.

Guarantees: the original and what stands beside it are only read; a copy is made once for each state of the files, and
removed with the process (or by the next one, where this one is killed). A writer at work is waited for a moment, and
then the file is unreadable, with the reason.
Does not guarantee: a copy of a file that changes again after `readable` has answered.
"""

import atexit
import fcntl
import os
import shutil
import sqlite3
import stat
import tempfile
import threading
import time
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

from conf.errors import QuorumError

PREFIX = "quorum-databases-"
"""Of the folders with private copies, in the system's folder for temporary files."""
ATTEMPTS = 3
PAUSE_S = 0.05
KNOWN_PATHS = 10_000
JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")
"""Ends a journal that names another file (https://sqlite.org/fileformat.html, "The Rollback Journal")."""

Stamp = tuple[int, int, int, int]
"""(time of the last change in ns, the same of its inode, size, inode). Who sets the first cannot set the second."""
State = tuple[Stamp, Stamp | None, Stamp | None]
"""Of the file, its write-ahead log and its journal; None where there is none or it is empty."""


class DatabaseUnreadable(QuorumError):
    """The file is missing, damaged or no SQLite database: the infrastructure's fault, never a score."""


def readable(path: str | Path) -> str:
    """Absolute path of a file that an immutable connection reads as SQLite would read `path`. Raises
    DatabaseUnreadable.

    >>> uri = readonly_uri(readable("shop.sqlite"))
    """
    real, state = located(path)
    if state[1] is None and state[2] is None:
        return real
    return _COPIES.copy(real, state)


def readonly_uri(path: str) -> str:
    """SQLite's URI of an absolute path, for a connection that neither writes nor locks."""
    return f"file:{quote(os.fsencode(path))}?mode=ro&immutable=1"


def located(path: str | Path) -> tuple[str, State]:
    """The file's absolute path without symbolic links, since SQLite looks for logs and journals beside the real file,
    and its state. Raises DatabaseUnreadable."""
    try:
        status = os.stat(path)
        real = _REAL.get(path)
        if real is None or not _is_same(real, status):
            # POSIX keeps two leading slashes apart from one, and a URI takes what follows them for a host.
            real = "/" + os.path.realpath(path).lstrip("/")
            if len(_REAL) >= KNOWN_PATHS:
                _REAL.clear()
            _REAL[path] = real
        return real, _state(real, _stamp_of(path, status))
    except FileNotFoundError as error:
        raise DatabaseUnreadable(f"no database file at {path} ({error.strerror})") from error
    except (OSError, ValueError) as error:  # ValueError: a null character, or half a surrogate pair
        raise DatabaseUnreadable(f"no database file at {str(path)!r} ({error})") from error


def _is_same(real: str, status: os.stat_result) -> bool:
    """Whether a path still leads to a file: folders move, and relative paths depend on where the process stands."""
    try:
        found = os.stat(real)
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (status.st_dev, status.st_ino)


def _state(real: str, stamp: Stamp) -> State:
    wal, journal = _stamp(f"{real}-wal"), _stamp(f"{real}-journal")
    return stamp, _unless_empty(wal), _hot(f"{real}-journal", _unless_empty(journal))


def _stamp(path: str) -> Stamp | None:
    try:
        return _stamp_of(path, os.stat(path))
    except FileNotFoundError:
        return None


def _stamp_of(path: str | Path, status: os.stat_result) -> Stamp:
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for somebody to write
        raise DatabaseUnreadable(f"{path} is not a regular file")
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


def _unless_empty(stamp: Stamp | None) -> Stamp | None:
    return stamp if stamp is not None and stamp[2] else None


def _hot(journal: str, stamp: Stamp | None) -> Stamp | None:
    """The stamp of a journal that SQLite would roll back; one that is done with begins with a zero."""
    if stamp is None:
        return None
    with open(journal, "rb") as file:
        return stamp if file.read(1) not in (b"", b"\0") else None


class _Copies:
    """The private copies of this process, one for each file with state beside it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, tuple[State, str]] = {}
        self._folder: Path | None = None
        self._lease: int | None = None
        self._made = 0

    def copy(self, path: str, state: State) -> str:
        """The copy of a file in this state. Raises DatabaseUnreadable."""
        with self._lock:
            known = self._known.get(path)
            # Folders for temporary files are swept in runs that last for days.
            if known is not None and known[0] == state and os.path.isfile(known[1]):
                return known[1]
            if known is not None:
                del self._known[path]
                Path(known[1]).unlink(missing_ok=True)
            try:
                state, made = self._make(path)
            except OSError as error:
                raise DatabaseUnreadable(
                    f"{path} has rows in a write-ahead log or journal, and no private copy can be made: {error}"
                ) from error
            self._known[path] = (state, made)
            return made

    def _make(self, path: str) -> tuple[State, str]:
        self._made += 1
        target = self._own_folder() / f"{self._made}.sqlite"
        for _ in range(ATTEMPTS):
            before = located(path)[1]
            for suffix, stamp in (("", before[0]), ("-wal", before[1]), ("-journal", before[2])):
                if stamp is not None:
                    shutil.copyfile(path + suffix, f"{target}{suffix}")
            if located(path)[1] == before:
                _settle(path, target)
                return before, str(target)
            for suffix in ("", "-wal", "-journal"):
                Path(f"{target}{suffix}").unlink(missing_ok=True)
            time.sleep(PAUSE_S)
        raise DatabaseUnreadable(f"{path} is being written: it changed while it was copied, {ATTEMPTS} times")

    def _own_folder(self) -> Path:
        while self._folder is None or not self._folder.is_dir():
            _remove_abandoned()
            self._folder = Path(tempfile.mkdtemp(prefix=PREFIX))
            atexit.register(shutil.rmtree, self._folder, ignore_errors=True)
            self._lease = os.open(self._folder / "lease", os.O_RDWR | os.O_CREAT, 0o600)
            # A process that found the lease before it was locked has removed the folder by the time it is.
            fcntl.flock(self._lease, fcntl.LOCK_EX)
        return self._folder


_COPIES = _Copies()
_REAL: dict[str | Path, str] = {}
"""Real path by path: resolving links takes longer than all else that a warm cache does."""


def _settle(path: str, copy: Path) -> None:
    """Lets SQLite roll the copy's journal back and take its log in. Raises DatabaseUnreadable."""
    journal = Path(f"{copy}-journal")
    if journal.exists() and journal.read_bytes()[-8:] == JOURNAL_MAGIC:
        # Rolling it back would look at, and may delete, a file that the journal names.
        raise DatabaseUnreadable(f"{path} has a journal of a transaction over several databases")
    try:
        with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    except sqlite3.Error as error:
        raise DatabaseUnreadable(f"{path} cannot be read as a SQLite database: {error}") from error
    if busy or journal.exists():
        raise DatabaseUnreadable(f"the write-ahead log or journal of {path} cannot be taken in")
    for suffix in ("-wal", "-shm"):
        Path(f"{copy}{suffix}").unlink(missing_ok=True)


def _remove_abandoned() -> None:
    """Folders of processes that were killed: nobody holds their lease."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):  # another user's folder, or another process removes it too
            lease = os.open(folder / "lease", os.O_RDWR)
            try:
                fcntl.flock(lease, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lease)
