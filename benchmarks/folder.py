"""A run's output folder: made when absent, held by one run at a time, files whole or not at all."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.carriers import BenchmarkError
from conf.output import replace_text

LOCK = ".lock"
SCORES, GENERATIONS = "scores.json", "generations.jsonl"
WRITTEN = (SCORES, "verdicts.jsonl", "candidates.jsonl", "report.html", "config.yaml", "official")
"""What a run writes at its end, the scores last."""


def refuse_results(output: str, *, generates: bool) -> None:
    """Raises BenchmarkError when the folder holds results of any run, or generations that this run does not continue.

    A run that generates continues a folder whose generations it finds unfinished; their settings are compared there.
    """
    folder = Path(output)
    continues = generates and (folder / GENERATIONS).exists() and not (folder / SCORES).exists()
    found = [] if continues else [name for name in (*WRITTEN, GENERATIONS) if (folder / name).exists()]
    if found:
        raise BenchmarkError(f"output={output} holds earlier results ({', '.join(found)}): choose another output=DIR")


@contextmanager
def held(output: str) -> Iterator[Path]:
    """The folder, locked until the block ends. The lock goes with its process, however that ends.

    Raises BenchmarkError when it cannot be made, or while another run holds it.
    """
    folder = Path(output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK).open("a")
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
    try:
        replace_text(file, text, errors="backslashreplace")
    except OSError as error:
        raise BenchmarkError(f"{file} cannot be written: {error.strerror}") from error
