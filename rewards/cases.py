"""Reads scoring cases, one JSON object a line: the input of offline scoring and of the HTTP server."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from rewards.carriers import SqlTask
from rewards.sql.files import expected_files
from rewards.sql.marks import THINK

NAME_BYTES = 255 - len(".sqlite")
"""Longest database name, in UTF-8: file systems take names of 255 bytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One completion with the task that it answers."""

    id: Any
    """As given; written back unchanged."""
    task: SqlTask
    completion: str
    """With a <think> before it where the line says that the prompt has opened one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BadLine:
    """A line that cannot be scored, with its number (from 1)."""

    number: int
    reason: str


class CaseInvalid(Exception):
    """What is wrong with a case, in one clause."""


def read_cases(lines: Iterable[bytes], root: Path, *, golds_only: bool = False) -> Iterator[Case | BadLine]:
    """One item a line that is not blank. golds_only: lines need no id and no completion."""
    defaults = {"id": None, "completion": ""} if golds_only else {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield parse_case(_with_defaults(load_json(line), defaults), root)
        except (ValueError, RecursionError):
            yield BadLine(number=number, reason="not valid JSON")
        except CaseInvalid as error:
            yield BadLine(number=number, reason=str(error))


def load_json(text: bytes) -> Any:
    """One JSON value. Raises ValueError, also for NaN and Infinity, and RecursionError."""
    return json.loads(text, parse_constant=_number, parse_float=_number)


def _number(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        raise ValueError(f"{text} is no JSON number")
    return number


def parse_case(value: object, root: Path) -> Case:
    """Checks the fields. Raises CaseInvalid."""
    if not isinstance(value, dict):
        raise CaseInvalid("not a JSON object")
    missing = [name for name in ("id", "db_id", "gold_sqls", "completion", "denotation") if name not in value]
    if missing:
        raise CaseInvalid(f"lacks the field {missing[0]!r}")
    golds = value["gold_sqls"]
    if not isinstance(golds, list) or not golds or not all(isinstance(gold, str) for gold in golds):
        raise CaseInvalid("gold_sqls is not a list of one or more queries")
    db_id = _database_name(_text(value, "db_id"))
    question = _text(value, "question", default="")
    asked = value.get("thinking", True)
    if not isinstance(asked, bool):
        raise CaseInvalid("thinking is neither true nor false")
    task = SqlTask(
        id=_task_id(db_id, question, golds),
        db_id=db_id,
        question=question,
        gold_sqls=tuple(golds),
        databases=expected_files(root, db_id),
        denotation=_denotation(value["denotation"]),
        format_asked=asked,
    )
    opened = value.get("thinking_opened", False)
    if not isinstance(opened, bool):
        raise CaseInvalid("thinking_opened is neither true nor false")
    return Case(id=value["id"], task=task, completion=(THINK if opened else "") + _text(value, "completion"))


def _with_defaults(value: object, defaults: dict[str, Any]) -> object:
    return {**defaults, **value} if isinstance(value, dict) else value


def _task_id(db_id: str, question: str, golds: list[str]) -> str:
    """The same for every completion of a question, whatever the lines are called."""
    content = json.dumps([db_id, question, golds]).encode()
    return blake2b(content, digest_size=12).hexdigest()


def _text(value: dict[str, Any], name: str, default: str | None = None) -> str:
    text = value.get(name, default)
    if not isinstance(text, str):
        raise CaseInvalid(f"{name} is not a text")
    return text


def _database_name(db_id: str) -> str:
    """A name that can be a folder below the root and nothing else."""
    try:
        size = len(db_id.encode())
    except UnicodeEncodeError:
        raise CaseInvalid("db_id is not valid Unicode text") from None
    if size > NAME_BYTES:
        raise CaseInvalid(f"db_id has {size} bytes, more than {NAME_BYTES}")
    if "\0" in db_id or db_id in ("", ".", "..") or Path(db_id).name != db_id:
        raise CaseInvalid(f"db_id {db_id!r} is not a plain name")
    return db_id


def _denotation(value: object) -> Literal["bird", "spider"]:
    if value == "bird":
        return "bird"
    if value == "spider":
        return "spider"
    raise CaseInvalid("denotation is neither 'bird' nor 'spider'")
