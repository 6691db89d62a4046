"""One question file of a benchmark in its published layout: a JSON list, and a folder for each database."""

from pathlib import Path
from typing import Literal

from conf.schema.data import Denotation
from rewards.carriers import SqlTask
from rewards.sql.files import instance_files
from rollout.tasks.carriers import Dropped
from rollout.tasks.records import Loaded, limited, read_json_list


def read_split(
    file: Path,
    databases: Path,
    *,
    source: str,
    gold_key: str,
    denotation: Denotation,
    split: Literal["train", "heldout"],
    limit: int | None,
) -> Loaded:
    """The file's tasks, with evidence and difficulty where given; those without a database are dropped.

    `source` begins the task ids; `gold_key` is the key of the gold query. Raises DataError.
    """
    tasks: list[SqlTask] = []
    dropped: list[Dropped] = []
    for record in limited(read_json_list(file), limit):
        db_id = record.text("db_id")
        task_id = f"{source}-{split}-{record.index}"
        instances = instance_files(databases, db_id)
        if not instances:
            detail = f"{record.where}: no file {databases / db_id / db_id}.sqlite"
            dropped.append(Dropped(id=task_id, reason="database missing", detail=detail))
            continue
        tasks.append(
            SqlTask(
                id=task_id,
                db_id=db_id,
                question=record.text("question"),
                evidence=record.optional_text("evidence"),
                gold_sqls=(record.text(gold_key),),
                databases=instances,
                denotation=denotation,
                split=split,
                difficulty=record.optional_text("difficulty") or None,
            )
        )
    return Loaded(tasks=tuple(tasks), dropped=tuple(dropped))
