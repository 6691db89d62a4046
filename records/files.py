"""The rows of a run folder: appended whole, read back strictly, cut back atomically.

Guarantees: a row is one complete line handed to the operating system before `append` returns, so a killed driver loses
at most the line it was writing; `rewind` and `write_atomically` replace a file by one rename. Does not guarantee that
appended rows survive a power cut: `sync` does, for what was appended before it.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from conf.errors import QuorumError

Json = dict[str, Any]


class RecordsDamaged(QuorumError):
    """The rows cannot be what a run of this program wrote: changed by something else, or incomplete."""


class RecordsNotWritten(QuorumError):
    """The run folder's disk takes no more rows."""


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of `path` when the block ends well; otherwise nothing changes."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_path(path.parent)


def sync_path(path: Path) -> None:
    """Puts a file's bytes, or a folder's list of names, on the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def sync_tree(folder: Path) -> None:
    """Puts everything in a folder on the disk: each file, and then the folder that names it, innermost first."""
    for place, _, files in os.walk(folder, topdown=False):
        for name in files:
            sync_path(Path(place) / name)
        sync_path(Path(place))


def write_atomically(path: Path, text: str) -> None:
    """Replaces `path` by rename: a reader sees the old text or the new, never a part; survives a power cut."""
    with _replacing(path) as file:
        file.write(text.encode("utf-8"))


def parse_row(path: Path, number: int, line: bytes) -> Json:
    """One line as a row. Raises RecordsDamaged with file and line number."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RecordsDamaged(f"{path}:{number} is no JSON: {error}") from error
    if not isinstance(row, dict):
        raise RecordsDamaged(f"{path}:{number} is no JSON object")
    return row


def _lines(path: Path) -> Iterator[tuple[bytes, Json]]:
    if not path.is_file():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            yield line, parse_row(path, number, line)


def read_rows(path: Path) -> Iterator[Json]:
    """The complete rows of a file, in order; none when it is absent. A last line that a kill cut short is left out.

    Raises RecordsDamaged with file and line for any other line that is no JSON object.
    """
    for _, row in _lines(path):
        yield row


def rewind(path: Path, keep: Callable[[Json], bool]) -> int:
    """Atomically drops the rows that `keep` refuses, and a torn last line; returns how many whole rows went."""
    if not path.is_file():
        return 0
    dropped = 0
    with _replacing(path) as file:
        for line, row in _lines(path):
            if keep(row):
                file.write(line)
            else:
                dropped += 1
    return dropped


class RowWriter:
    """Appends JSON rows to one file, after cutting off a torn last line. `open` does that now; otherwise the first row
    does, and until then the file stays as it is."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO | None = None

    def open(self) -> BinaryIO:
        """The file to append to, made where there is none."""
        if self._file is None:
            _cut_torn_line(self.path)
            self._file = self.path.open("ab")
        return self._file

    def append(self, row: Mapping[str, Any]) -> None:
        """Writes one line, or raises: ValueError for NaN or infinity, TypeError for what JSON lacks,
        RecordsNotWritten for a full or failing disk."""
        line = json.dumps(row, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        # Lone surrogates, which a model can produce, have no UTF-8 form; backslashreplace makes them JSON escapes.
        try:
            file = self.open()
            file.write(line.encode("utf-8", "backslashreplace") + b"\n")
            file.flush()
        except OSError as error:
            raise RecordsNotWritten(f"{self.path} cannot be written: {error.strerror}") from error

    def sync(self) -> None:
        """Waits until everything appended is on the disk."""
        os.fsync(self.open().fileno())

    def close(self) -> None:
        """May be called twice; nothing is appended afterwards."""
        if self._file is not None:
            self._file.close()


def _cut_torn_line(path: Path) -> None:
    if not path.is_file():
        return
    with path.open("r+b") as file:
        end = keep = file.seek(0, os.SEEK_END)
        while keep > 0:
            start = max(0, keep - 65536)
            file.seek(start)
            newline = file.read(keep - start).rfind(b"\n")
            if newline >= 0:
                keep = start + newline + 1
                break
            keep = start
        if keep < end:
            file.truncate(keep)
