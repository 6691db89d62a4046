"""Your own questions, one JSON object a line; docs/data.md lists the fields."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Literal

from conf.schema.data import JsonlData
from rewards.carriers import SqlTask
from rewards.sql.files import instance_files
from rollout.tasks.carriers import DataError, Dropped, TaskSet, Trace
from rollout.tasks.records import Loaded, Record, limited, read_json_lines

_FIELDS = frozenset({"id", "question", "database", "databases", "db_id", "sql", "evidence", "difficulty", "trace"})


def load_jsonl(config: JsonlData) -> TaskSet:
    """Train and held-out tasks; the train tasks are also the warm-up's. Raises DataError."""
    train, traces = read_split(config, Path(config.train), "train", config.train_limit)
    heldout = Loaded()
    if config.heldout is not None:
        heldout, _ = read_split(config, Path(config.heldout), "heldout", config.heldout_limit)
    return TaskSet(
        warmup=train.tasks,
        train=train.tasks,
        heldout=heldout.tasks,
        dropped=train.dropped + heldout.dropped,
        traces=traces,
    )


def read_split(
    config: JsonlData, file: Path, split: Literal["train", "heldout"], limit: int | None
) -> tuple[Loaded, dict[str, Trace]]:
    """The tasks of one file and the traces it carries, by task id. Raises DataError."""
    tasks: dict[str, SqlTask] = {}
    dropped: list[Dropped] = []
    traces: dict[str, Trace] = {}
    for record in limited(read_json_lines(file), limit):
        _reject_unknown(record)
        task_id = record.optional_text("id") or f"jsonl-{split}-{record.index}"
        if task_id in tasks:
            raise DataError(f"{record.where}: id '{task_id}' is used twice")
        golds = _strings(record, "sql")
        db_id, databases = _databases(config, file, record)
        missing = [path for path in databases if not os.path.isfile(path)]
        if missing or not databases:
            detail = (
                f"{record.where}: no file {missing[0] if missing else f'{config.databases}/{db_id}/{db_id}.sqlite'}"
            )
            dropped.append(Dropped(id=task_id, reason="database missing", detail=detail))
            continue
        tasks[task_id] = SqlTask(
            id=task_id,
            db_id=db_id,
            question=record.text("question"),
            evidence=record.optional_text("evidence"),
            gold_sqls=golds,
            databases=databases,
            denotation=config.denotation,
            split=split,
            difficulty=record.optional_text("difficulty") or None,
        )
        if record.fields.get("trace") is not None:
            traces[task_id] = _trace(record)
    return Loaded(tasks=tuple(tasks.values()), dropped=tuple(dropped)), traces


def _reject_unknown(record: Record) -> None:
    unknown = sorted(set(record.fields) - _FIELDS)
    if unknown:
        raise DataError(f"{record.where}: unknown key '{unknown[0]}' (known: {', '.join(sorted(_FIELDS))})")


def _strings(record: Record, key: str) -> tuple[str, ...]:
    """One string or a list of them, at least one. Raises DataError."""
    value = record.fields.get(key)
    if not isinstance(value, list):
        return (record.text(key),)
    if not value:
        raise DataError(f"{record.where}: '{key}' must be a string or a list of non-empty strings")
    return tuple(replace(record, fields={key: item}).text(key) for item in value)


def _databases(config: JsonlData, file: Path, record: Record) -> tuple[str, tuple[str, ...]]:
    """(db_id, database files). Relative paths start at the folder of the jsonl file."""
    named = [key for key in ("database", "databases") if key in record.fields]
    if len(named) == 2:
        raise DataError(f"{record.where}: give 'database' or 'databases', not both")
    if named:
        paths = tuple(str(file.parent / path) for path in _strings(record, named[0]))
        return record.optional_text("db_id") or Path(paths[0]).stem, paths
    if "db_id" not in record.fields:
        raise DataError(f"{record.where}: a question needs 'database' (a path) or 'db_id' (with data.databases set)")
    db_id = record.text("db_id")
    if config.databases is None:
        raise DataError(f"{record.where}: names db_id '{db_id}', so data.databases must name the folder of databases")
    return db_id, instance_files(Path(config.databases), db_id)


def _trace(record: Record) -> Trace:
    """A trace is "<think>reasoning</think>SQL", or {"reasoning": ..., "sql": ...}. Raises DataError."""
    value = record.fields["trace"]
    if isinstance(value, dict):
        parts = Record(where=f"{record.where} trace", index=record.index, fields=value)
        return Trace(reasoning=parts.optional_text("reasoning"), sql=parts.text("sql"))
    text = record.text("trace")
    opening, closing = text.count("<think>"), text.count("</think>")
    if not opening and not closing:
        return Trace(reasoning="", sql=text)
    head, _, sql = text.partition("</think>")
    if (opening, closing) != (1, 1) or not head.startswith("<think>") or not sql.strip():
        raise DataError(f"{record.where}: 'trace' must be <think>reasoning</think>SQL, or the SQL alone")
    return Trace(reasoning=head.removeprefix("<think>").strip(), sql=sql.strip())
