"""What a command does with an output that is there already: it refuses, before anything slow starts.

Guarantees: a file that a command reads is never emptied by what it writes, under whatever name: hard links, symbolic
links, other spellings of a path and /dev/stdin are told by the file itself. Replaced files, and folders of a cache,
appear by rename.
"""

import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path

from conf.errors import QuorumError

SQLITE = (b"SQLite format 3\0", b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83", b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7")
"""How a database file begins, its write-ahead log in either byte order, and its rollback journal."""


class OutputTaken(QuorumError):
    """An output would overwrite results or an input, or its folder cannot be made."""


def new_output(output: str, *names: str) -> Path:
    """The folder `output`, made when absent, to which none of the files `names` belongs yet. Raises OutputTaken."""
    folder = Path(output)
    refuse_existing("output", *(folder / name for name in names))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputTaken(f"output={output} cannot be used as a folder: {error.strerror}") from error
    return folder


def new_file(setting: str, file: Path) -> Path:
    """A file that is not there yet, in a folder that is, made when absent. Raises OutputTaken."""
    refuse_existing(setting, file)
    new_output(str(file.parent))
    return file


def refuse_existing(setting: str, *files: Path) -> None:
    """Raises OutputTaken when one of the files is there."""
    taken = next((file for file in files if file.exists()), None)
    if taken is not None:
        raise OutputTaken(f"{taken} holds earlier results: choose another {setting}, or remove it")


def refuse_input(setting: str, file: Path, inputs: Mapping[str, str | Path | None]) -> None:
    """For an output that replaces what is there: raises OutputTaken when it is one of `inputs` (setting -> path) or a
    database.
    """
    try:
        there = file.stat()
    except OSError:
        return  # nothing is there, and writing says what else is wrong
    for name, path in inputs.items():
        if path is not None and _is(path, there):
            raise OutputTaken(f"{setting}={file} is the same file as {name}={path}: choose another file")
    if stat.S_ISREG(there.st_mode) and _begins(file, SQLITE):
        raise OutputTaken(f"{setting}={file} is a database: choose another file")


def _is(path: str | Path, there: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(path), there)
    except OSError:
        return False


def _begins(file: Path, marks: tuple[bytes, ...]) -> bool:
    try:
        with file.open("rb") as stream:
            return stream.read(max(map(len, marks))).startswith(marks)
    except OSError:
        return False


def replace_text(file: Path, text: str, *, errors: str = "strict") -> None:
    """The name appears by rename, from a file of a name that nobody has: other names of what was there keep it.

    Raises OSError, and then leaves nothing.
    """
    partial = file.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with partial.open("x", encoding="utf-8", errors=errors) as stream:
            stream.write(text)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def publish(scratch: Path, folder: Path) -> None:
    """Renames a finished folder to its place in a cache, readable by all.

    Where another process has published the same content first, its folder is as good and stays; `scratch` is then left
    to its owner.
    """
    scratch.chmod(0o755)
    try:
        os.rename(scratch, folder)
    except OSError:
        if not folder.is_dir():
            raise
