"""Spider in its published layout, and the demo's held-out questions in its clothes."""

from pathlib import Path

from benchmarks.carriers import BenchmarkError, Question, QuestionSet
from benchmarks.questions.files import as_question, check_databases, first_existing, read_schemas
from conf.schema.benchmark import SpiderQuestions
from conf.schema.data import DemoData
from rewards.sql.files import instance_files
from rollout.tasks.published import GOLD_KEYS, read_entries

SPLITS = {
    "dev": (("dev.json",), ("tables.json",), ("database",)),
    "test": (
        ("test.json", "test_data/dev.json"),
        ("test_tables.json", "test_data/tables.json", "tables.json"),
        ("test_database", "test_data/database", "database"),
    ),
    "train": (("train_spider.json", "train.json"), ("tables.json",), ("database",)),
}
"""Split -> where its questions, schemas and databases lie; the first place that exists counts."""


def load(data: SpiderQuestions | DemoData, limit: int | None) -> QuestionSet:
    """All questions of the split, or the first `limit`. Raises BenchmarkError, DataError."""
    return _load_demo(data, limit) if isinstance(data, DemoData) else _load_files(data, limit)


def _load_files(data: SpiderQuestions, limit: int | None) -> QuestionSet:
    root = Path(data.root)
    questions_at, tables_at, databases_at = SPLITS[data.split]
    file = first_existing(root, (data.questions,) if data.questions else questions_at, "Spider's question file")
    tables = first_existing(root, (data.tables,) if data.tables else tables_at, "Spider's tables.json")
    folder = first_existing(root, (data.databases,) if data.databases else databases_at, "the database folder")
    entries = read_entries(file, GOLD_KEYS["spider"])
    chosen = entries[:limit]
    schemas = read_schemas(tables)
    unknown = sorted({entry.db_id for entry in chosen} - schemas.keys())
    if unknown:
        raise BenchmarkError(f"{tables}: schemas expected for {', '.join(unknown[:5])}, which {file} asks about")
    known = {db_id: instance_files(folder, db_id) for db_id in {entry.db_id for entry in chosen}}
    questions = tuple(as_question(entry, known[entry.db_id]) for entry in chosen)
    check_databases(questions, folder)
    keys = tuple(entry.key for entry in entries)
    return QuestionSet(name=f"Spider {data.split}", questions=questions, schemas=schemas, whole=len(entries), keys=keys)


def _load_demo(data: DemoData, limit: int | None) -> QuestionSet:
    # The demo's builder loads pandas through sqlite-utils; scoring a prediction file must not wait for that.
    from rollout.tasks.demo import load_demo

    heldout = load_demo(data).heldout
    questions = tuple(
        Question(
            position=position,
            key=position,
            db_id=task.db_id,
            question=task.question,
            gold=task.gold_sqls[0],
            databases=task.databases,
        )
        for position, task in enumerate(heldout[:limit])
    )
    return QuestionSet(name="demo held-out", questions=questions, whole=len(heldout), keys=tuple(range(len(heldout))))
