"""A run's output folder: made when absent, held by one run at a time, files whole or not at all."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.carriers import BenchmarkError

LOCK = ".lock"


@contextmanager
def held(output: str) -> Iterator[Path]:
    """The folder, locked until the block ends. The lock goes with its process, however that ends.

    Raises BenchmarkError when it cannot be made, or while another run holds it.
    """
    folder = Path(output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK).open("w")
    except OSError as error:
        raise BenchmarkError(f"output={output} cannot be used as a folder: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BenchmarkError(
                f"output={output} is in use by another run: wait for its end, or choose another folder"
            ) from error
        yield folder


def write_whole(file: Path, text: str) -> None:
    """The name appears by rename. Raises BenchmarkError."""
    partial = file.with_name(file.name + ".part")
    try:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")
        partial.replace(file)
    except OSError as error:
        raise BenchmarkError(f"{file} cannot be written: {error.strerror}") from error
