"""Reading question files: JSON lists and JSON lines, with errors that name the file and the place in it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from rewards.carriers import SqlTask
from rewards.cases import load_json
from rollout.tasks.carriers import DataError, Dropped

One = TypeVar("One")


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One JSON object of a question file."""

    where: str
    """File and place, for messages: "dev.json entry 3" counts from 0, "questions.jsonl line 4" from 1."""
    index: int
    """0-based position in the file."""
    fields: dict[str, Any]

    def text(self, key: str) -> str:
        """A required, non-empty string. Raises DataError."""
        if key not in self.fields:
            raise DataError(f"{self.where}: key '{key}' is missing (found: {', '.join(sorted(self.fields)) or 'none'})")
        value = self.optional_text(key)
        if not value:
            raise DataError(f"{self.where}: '{key}' is empty")
        return value

    def optional_text(self, key: str) -> str:
        """A string, '' where the key is absent or null. Raises DataError for another type."""
        value = self.fields.get(key)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise DataError(f"{self.where}: '{key}' must be a string, not {type(value).__name__}")
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise DataError(f"{self.where}: '{key}' holds half of a surrogate pair, which no UTF-8 text can")
        return value.strip()


@dataclass(frozen=True, kw_only=True, slots=True)
class Loaded:
    """One file's tasks and what was left out of it."""

    tasks: tuple[SqlTask, ...] = ()
    dropped: tuple[Dropped, ...] = ()


def read_json_list(file: Path) -> list[Record]:
    """A JSON file that holds a list of objects. Raises DataError."""
    entries = _parsed(file, _read(file), line=1)
    if not isinstance(entries, list):
        raise DataError(f"{file}: a JSON list of questions is expected, not a {type(entries).__name__}")
    return [_record(f"{file} entry {index}", index, entry) for index, entry in enumerate(entries)]


def read_json_lines(file: Path) -> list[Record]:
    """A file with one JSON object a line; blank lines are allowed. Raises DataError."""
    records: list[Record] = []
    for number, line in enumerate(_read(file).split("\n"), start=1):
        if not line.strip():
            continue
        entry = _parsed(file, line, line=number)
        records.append(_record(f"{file} line {number}", len(records), entry))
    return records


def limited(records: Sequence[One], limit: int | None) -> Sequence[One]:
    """At most `limit` of them, evenly spaced over the file, so that a small part still covers many databases."""
    if limit is None or limit >= len(records):
        return records
    return [records[index * len(records) // limit] for index in range(limit)]


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not UTF-8 text at byte {error.start}") from error


def _parsed(file: Path, text: str, *, line: int) -> object:
    """`line`: where `text` begins, from 1."""
    try:
        return load_json(text.encode())
    except json.JSONDecodeError as error:
        place = f"{file} line {line + error.lineno - 1} column {error.colno}"
        raise DataError(f"{place}: not valid JSON: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        # A number of thousands of digits, or thousands of nested brackets.
        raise DataError(f"{file} line {line}: JSON that cannot be read: {error}") from error


def _record(where: str, index: int, entry: object) -> Record:
    if not isinstance(entry, dict):
        raise DataError(f"{where}: a JSON object is expected, not a {type(entry).__name__}")
    return Record(where=where, index=index, fields=entry)
