"""One question file of a benchmark in its published layout: a JSON list, and a folder for each database.

The one reader of such files: training, benchmarks and the study of voters see the same questions, with the same text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from conf.schema.data import Denotation
from rewards.carriers import SqlTask
from rewards.sql.files import instance_files
from rollout.tasks.carriers import DataError, Dropped
from rollout.tasks.records import Loaded, Record, limited, read_json_list

GOLD_KEYS: dict[Denotation, str] = {"spider": "query", "bird": "SQL"}
"""What a file of each benchmark calls the gold query."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One question of a published file, in its place."""

    where: str
    """File and place, for messages."""
    place: int
    """0-based position in the file."""
    key: int | str
    """Its question_id (BIRD), which questions may share; its place where the file has none or none is asked for."""
    db_id: str
    question: str
    evidence: str
    """'' where there is none."""
    gold: str
    difficulty: str | None


def read_entries(file: Path, gold_key: str, *, ids: bool = True) -> list[Entry]:
    """Every question of the file, in order; texts without surrounding white space.

    `ids`: whether keys are question_ids, which every entry must then have that any has. Training names tasks by place
    and takes files joined from parts with ids and parts without. Raises DataError.
    """
    records = read_json_list(file)
    if not records:
        raise DataError(f"{file}: at least one question is expected")
    numbered = ids and gold_key == GOLD_KEYS["bird"] and any("question_id" in record.fields for record in records)
    return [
        Entry(
            where=record.where,
            place=record.index,
            key=_question_id(record) if numbered else record.index,
            db_id=record.text("db_id"),
            question=record.text("question"),
            evidence=record.optional_text("evidence"),
            gold=record.text(gold_key),
            difficulty=record.optional_text("difficulty") or None,
        )
        for record in records
    ]


def _question_id(record: Record) -> int | str:
    key = record.fields.get("question_id")
    if isinstance(key, bool) or not isinstance(key, int | str):
        raise DataError(f"{record.where}: 'question_id' must be a number or a string")
    return key


def ambiguous_keys(entries: Sequence[Entry]) -> frozenset[str]:
    """The keys, as text, that stand for different questions; mini-dev asks two questions twice, each under one id."""
    asked: dict[str, set[tuple[str, str, str]]] = {}
    for entry in entries:
        asked.setdefault(str(entry.key), set()).add((entry.db_id, entry.question, entry.evidence))
    return frozenset(key for key, questions in asked.items() if len(questions) > 1)


def read_split(
    file: Path,
    databases: Path,
    *,
    denotation: Denotation,
    source: Literal["spider", "bird"],
    split: Literal["train", "heldout"],
    limit: int | None,
) -> Loaded:
    """The file's tasks, with evidence and difficulty where given; those without a database are dropped.

    `source` begins the task ids. `limit`: that many, evenly spaced over the file. Raises DataError.
    """
    tasks: list[SqlTask] = []
    dropped: list[Dropped] = []
    for entry in limited(read_entries(file, GOLD_KEYS[source], ids=False), limit):
        task_id = f"{source}-{split}-{entry.place}"
        instances = instance_files(databases, entry.db_id)
        if not instances:
            detail = f"{entry.where}: no file {databases / entry.db_id / entry.db_id}.sqlite"
            dropped.append(Dropped(id=task_id, reason="database missing", detail=detail))
            continue
        tasks.append(
            SqlTask(
                id=task_id,
                db_id=entry.db_id,
                question=entry.question,
                evidence=entry.evidence,
                gold_sqls=(entry.gold,),
                databases=instances,
                denotation=denotation,
                split=split,
                difficulty=entry.difficulty,
            )
        )
    return Loaded(tasks=tuple(tasks), dropped=tuple(dropped))
