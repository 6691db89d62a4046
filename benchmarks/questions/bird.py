"""BIRD in its published layout: dev, train and mini-dev."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.carriers import BenchmarkError, Key, Question, QuestionSet
from benchmarks.questions.files import check_databases, first_existing, read_entries
from conf.schema.benchmark import BirdQuestions
from rewards.sql.files import instance_files

SPLITS = {
    "dev": (("dev.json",), ("dev_databases",)),
    "train": (("train/train.json", "train.json"), ("train/train_databases", "train_databases")),
    "mini_dev": (
        ("mini_dev_sqlite.json", "MINIDEV/mini_dev_sqlite.json"),
        ("dev_databases", "MINIDEV/dev_databases"),
    ),
}
"""Split -> where its questions and databases lie; the first place that exists counts."""


def load(data: BirdQuestions, limit: int | None) -> QuestionSet:
    """All questions of the split, or the first `limit`. Raises BenchmarkError."""
    root = Path(data.root)
    questions_at, databases_at = SPLITS[data.split]
    file = first_existing(root, (data.questions,) if data.questions else questions_at, "BIRD's question file")
    folder = first_existing(root, (data.databases,) if data.databases else databases_at, "the database folder")
    entries = read_entries(file, "a list of BIRD questions", ("db_id", "question", "SQL"), ("evidence", "difficulty"))
    keys, whole = _keys(file, entries), len(entries)
    shared, entries = _shared(keys, entries), entries[:limit]
    known = {db_id: instance_files(folder, db_id)[:1] for db_id in {entry["db_id"] for entry in entries}}
    questions = tuple(
        Question(
            position=position,
            key=keys[position],
            db_id=entry["db_id"],
            question=entry["question"],
            evidence=entry["evidence"] or "",
            gold=entry["SQL"],
            databases=known[entry["db_id"]],
            difficulty=entry["difficulty"],
        )
        for position, entry in enumerate(entries)
    )
    check_databases(questions, folder)
    return QuestionSet(name=f"BIRD {data.split}", questions=questions, whole=whole, keys=keys, shared=shared)


def _keys(file: Path, entries: Sequence[dict[str, Any]]) -> tuple[Key, ...]:
    """Every entry's question_id, or its place where no entry has one (train)."""
    if not any("question_id" in entry for entry in entries):
        return tuple(range(len(entries)))
    for position, entry in enumerate(entries):
        key = entry.get("question_id")
        if isinstance(key, bool) or not isinstance(key, int | str):
            raise BenchmarkError(f"{file} entry {position}: a number or a text expected under 'question_id'")
    return tuple(entry["question_id"] for entry in entries)


def _shared(keys: Sequence[Key], entries: Sequence[dict[str, Any]]) -> frozenset[str]:
    """The keys, as text, that stand for different questions; mini-dev asks two questions twice, each under one id."""
    asked: dict[str, set[tuple[str, str, str]]] = {}
    for key, entry in zip(keys, entries, strict=True):
        asked.setdefault(str(key), set()).add((entry["db_id"], entry["question"], entry["evidence"] or ""))
    return frozenset(key for key, questions in asked.items() if len(questions) > 1)
