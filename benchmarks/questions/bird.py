"""BIRD in its published layout: dev, train and mini-dev."""

from pathlib import Path

from benchmarks.carriers import QuestionSet
from benchmarks.questions.files import as_question, check_databases, first_existing
from conf.schema.benchmark import BirdQuestions
from rewards.sql.files import instance_files
from rollout.tasks.published import GOLD_KEYS, ambiguous_keys, read_entries

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
    """All questions of the split, or the first `limit`. Raises BenchmarkError, DataError."""
    root = Path(data.root)
    questions_at, databases_at = SPLITS[data.split]
    file = first_existing(root, (data.questions,) if data.questions else questions_at, "BIRD's question file")
    folder = first_existing(root, (data.databases,) if data.databases else databases_at, "the database folder")
    entries = read_entries(file, GOLD_KEYS["bird"])
    known = {db_id: instance_files(folder, db_id)[:1] for db_id in {entry.db_id for entry in entries[:limit]}}
    questions = tuple(as_question(entry, known[entry.db_id]) for entry in entries[:limit])
    check_databases(questions, folder)
    return QuestionSet(
        name=f"BIRD {data.split}",
        questions=questions,
        whole=len(entries),
        keys=tuple(entry.key for entry in entries),
        shared=ambiguous_keys(entries),
    )
