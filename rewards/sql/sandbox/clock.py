"""The clock that SQLite's time functions see in this process: one moment, the same for every query that asks for it.

SQLite asks its operating-system layer (the VFS) for the time, whatever spells the question: a function without a time,
'now' from a literal, a column or a view, CURRENT_TIMESTAMP. The layer's two time functions are replaced by ours, so a
frozen clock costs nothing and changes nothing else. Where Python's SQLite does not show its layer (it was linked
statically, without symbols), `install` replaces the functions themselves: the same answers, a few microseconds a call.
"""

import _sqlite3
import ctypes
import sqlite3
import time
from collections.abc import Callable

Value = int | float | str | bytes | None
EPOCH_MS = 210_866_760_000_000
"""1970-01-01 in milliseconds of SQLite's Julian day."""
DAY_MS = 86_400_000.0
_FUNCTIONS = ("date", "time", "datetime", "julianday", "unixepoch")
_KEYWORDS = {"current_date": "date", "current_time": "time", "current_timestamp": "datetime"}

SUBSECONDS = sqlite3.sqlite_version_info >= (3, 42)
TIMEDIFF = sqlite3.sqlite_version_info >= (3, 43)

_Float = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_double))
_Integer = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int64))
_POINTERS = (
    "xOpen xDelete xAccess xFullPathname xDlOpen xDlError xDlSym xDlClose xRandomness xSleep".split(),
    ("xGetLastError",),
)


class _Vfs(ctypes.Structure):
    """struct sqlite3_vfs, version 2 (https://sqlite.org/c3ref/vfs.html)."""

    _fields_ = [
        *(("iVersion", ctypes.c_int), ("szOsFile", ctypes.c_int), ("mxPathname", ctypes.c_int)),
        *(("pNext", ctypes.c_void_p), ("zName", ctypes.c_char_p), ("pAppData", ctypes.c_void_p)),
        *((name, ctypes.c_void_p) for name in _POINTERS[0]),
        ("xCurrentTime", _Float),
        *((name, ctypes.c_void_p) for name in _POINTERS[1]),
        ("xCurrentTimeInt64", _Integer),
    ]


class Clock:
    """One for a process. `frozen_ms`: milliseconds since 1970 (UTC) that every query sees; None: the present."""

    def __init__(self, *, layer: bool = True) -> None:
        """`layer` False: leave SQLite's layer alone, as where it cannot be reached."""
        self.frozen_ms: int | None = None
        self._callbacks = (_Float(self._as_float), _Integer(self._as_integer))  # kept alive: SQLite holds pointers
        vfs = _default_vfs() if layer else None
        self.in_layer = vfs is not None
        """Whether SQLite's layer answers; else `install` must be called for every connection."""
        if vfs is not None:
            vfs.xCurrentTime, vfs.xCurrentTimeInt64 = self._callbacks

    def install(self, connection: sqlite3.Connection, native: Callable[..., Value]) -> None:
        """Replaces a connection's time functions where the layer does not answer. `native(name, *arguments)` calls
        SQLite's own."""
        if self.in_layer:
            return

        def replaced(name: str, first: int) -> Callable[..., Value]:
            def call(*arguments: Value) -> Value:
                given = list(arguments)
                if len(given) == first or (SUBSECONDS and _word(given[first]) in ("subsec", "subsecond")):
                    given.insert(first, "now")  # the modifier alone means the present
                if _word(given[first]) == "now":
                    given[first] = self._julian_ms() / DAY_MS
                return native(name, *given)

            return call

        def difference(*moments: Value) -> Value:
            return native("timediff", *(self._julian_ms() / DAY_MS if _word(m) == "now" else m for m in moments))

        for name in _FUNCTIONS:
            connection.create_function(name, -1, replaced(name, 0), deterministic=True)
        connection.create_function("strftime", -1, replaced("strftime", 1), deterministic=True)
        if TIMEDIFF:
            connection.create_function("timediff", 2, difference, deterministic=True)
        for keyword, name in _KEYWORDS.items():
            connection.create_function(keyword, 0, replaced(name, 0), deterministic=True)

    def _julian_ms(self) -> int:
        present = time.time_ns() // 1_000_000 if self.frozen_ms is None else self.frozen_ms
        return EPOCH_MS + present

    def _as_integer(self, vfs: object, out: "ctypes._Pointer[ctypes.c_int64]") -> int:
        out[0] = self._julian_ms()
        return 0

    def _as_float(self, vfs: object, out: "ctypes._Pointer[ctypes.c_double]") -> int:
        out[0] = self._julian_ms() / DAY_MS
        return 0


def _word(value: Value) -> str | None:
    """An argument as SQLite's time functions read it, in lower case; None for numbers and NULL."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return value.lower() if isinstance(value, str) else None


def _default_vfs() -> "_Vfs | None":
    """SQLite's default layer in the library that Python's module uses; None where it cannot be reached."""
    # A module that is part of the interpreter has no file: its symbols are the process's own.
    file = _sqlite3.__file__ if "__file__" in vars(_sqlite3) else None
    try:
        find = ctypes.CDLL(file).sqlite3_vfs_find
        version = ctypes.CDLL(file).sqlite3_libversion
    except (OSError, AttributeError):
        return None
    version.restype = ctypes.c_char_p
    if version().decode() != sqlite3.sqlite_version:  # another SQLite in this process, not the one Python uses
        return None
    find.restype = ctypes.POINTER(_Vfs)
    found = find(None)
    return found.contents if found and found.contents.iVersion >= 2 else None
