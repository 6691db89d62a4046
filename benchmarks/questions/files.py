"""Finding and checking the files of a published layout, with errors that say what was expected."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.carriers import BenchmarkError, Question
from rewards.cases import load_json

SQLITE_HEADER = b"SQLite format 3\x00"


def read_json(file: Path, what: str) -> Any:
    """Parsed JSON. Raises BenchmarkError, also for NaN and Infinity, which JSON does not know."""
    try:
        return load_json(file.read_text(encoding="utf-8-sig").encode())
    except OSError as error:
        raise BenchmarkError(f"{what} expected at {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BenchmarkError(f"{file}: {what} expected, but it is no UTF-8 text (byte {error.start})") from error
    except json.JSONDecodeError as error:
        raise BenchmarkError(f"{file} line {error.lineno}: {what} expected, but it is no JSON: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise BenchmarkError(f"{file}: {what} expected, but it is no JSON: {error}") from error


def read_entries(file: Path, what: str, keys: Sequence[str], optional: Sequence[str] = ()) -> list[dict[str, Any]]:
    """A JSON list of objects, each with text under all `keys`, and text or None under `optional` ones. Raises
    BenchmarkError.
    """
    entries = read_json(file, what)
    if not isinstance(entries, list) or not entries:
        raise BenchmarkError(f"{file}: {what} expected, a JSON list of objects that is not empty")
    for position, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise BenchmarkError(f"{file} entry {position}: a JSON object expected, found {type(entry).__name__}")
        for key in keys:
            if not isinstance(entry.get(key), str):
                raise BenchmarkError(f"{file} entry {position}: text expected under '{key}'")
        for key in optional:
            if not isinstance(entry.setdefault(key, None), str | None):
                raise BenchmarkError(f"{file} entry {position}: text or nothing expected under '{key}'")
    return entries


def first_existing(root: Path, choices: Sequence[str], what: str) -> Path:
    """The first of several places that exists. Raises BenchmarkError that names them all."""
    if not root.is_dir():
        raise BenchmarkError(f"data.root={root} is no folder; {what} expected in it")
    for choice in choices:
        if (root / choice).exists():
            return root / choice
    raise BenchmarkError(f"{what} expected at {' or '.join(str(root / choice) for choice in choices)}")


def check_databases(questions: Sequence[Question], folder: Path) -> None:
    """Raises BenchmarkError when a database is missing or does not begin like a SQLite file."""
    missing = Counter(question.db_id for question in questions if not question.databases)
    if missing:
        names = ", ".join(sorted(missing)[:5])
        raise BenchmarkError(
            f"{len(missing)} databases are missing below {folder}, each expected as <db_id>/<db_id>.sqlite: {names}"
            f"{', ...' if len(missing) > 5 else ''} ({missing.total()} questions need them)"
        )
    for file in dict.fromkeys(path for question in questions for path in question.databases):
        try:
            with open(file, "rb") as stream:
                header = stream.read(len(SQLITE_HEADER))
        except OSError as error:
            raise BenchmarkError(f"a readable SQLite database expected at {file}: {error.strerror}") from error
        if header != SQLITE_HEADER:
            raise BenchmarkError(f"a SQLite database expected at {file}, but the file does not begin like one")
