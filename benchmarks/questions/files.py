"""Finding and checking the files of a published layout, with errors that say what was expected."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.carriers import BenchmarkError, Question
from rollout.tasks.published import Entry
from rollout.tasks.records import read_json_list

SQLITE_HEADER = b"SQLite format 3\x00"


def read_schemas(file: Path) -> dict[str, Any]:
    """Spider's tables.json by db_id. Raises DataError."""
    return {record.text("db_id"): record.fields for record in read_json_list(file)}


def as_question(entry: Entry, databases: tuple[str, ...]) -> Question:
    """A question of a published file; Spider's keys are its places."""
    return Question(
        position=entry.place,
        key=entry.key,
        db_id=entry.db_id,
        question=entry.question,
        evidence=entry.evidence,
        gold=entry.gold,
        databases=databases,
        difficulty=entry.difficulty,
    )


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
