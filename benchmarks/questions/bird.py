"""BIRD in its published layout: dev, train and mini-dev."""

from pathlib import Path

from benchmarks.carriers import BenchmarkError, Question, QuestionSet
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
    entries = read_entries(file, "a list of BIRD questions", ("db_id", "question", "SQL"))
    whole, entries = len(entries), entries[:limit]
    known = {db_id: instance_files(folder, db_id)[:1] for db_id in {entry["db_id"] for entry in entries}}
    questions = tuple(
        Question(
            position=position,
            key=entry.get("question_id", position),
            db_id=entry["db_id"],
            question=entry["question"],
            evidence=entry.get("evidence") or "",
            gold=entry["SQL"],
            databases=known[entry["db_id"]],
            difficulty=entry.get("difficulty"),
        )
        for position, entry in enumerate(entries)
    )
    if len({question.key for question in questions}) != len(questions):
        raise BenchmarkError(f"{file}: a question_id of its own expected for each question")
    check_databases(questions, folder)
    return QuestionSet(name=f"BIRD {data.split}", questions=questions, whole=whole)
