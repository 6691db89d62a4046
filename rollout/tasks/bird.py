"""BIRD in its published layout: ROOT/train/train.json + train/train_databases, ROOT/dev.json + dev_databases.

Each database is one file, <db_id>/<db_id>.sqlite; further *.sqlite files beside it count as instances.
"""

from pathlib import Path
from typing import Literal

from conf.schema.data import BirdData
from rewards.carriers import SqlTask
from rewards.sql.files import instance_files
from rollout.tasks.carriers import DataError, Dropped, TaskSet
from rollout.tasks.records import Loaded, limited, read_json_list


def load_bird(config: BirdData) -> TaskSet:
    """Train and held-out tasks; the train tasks are also the warm-up's. Raises DataError."""
    root = Path(config.root)
    train_file, heldout_file = root / config.train_file, root / config.heldout_file
    if not train_file.is_file() and heldout_file.is_file():
        raise DataError(
            f"{train_file} is missing and only {config.heldout_file} is there: add BIRD's training set, or set "
            f"data.train_file={config.heldout_file} data.train_databases={config.heldout_databases} to try the "
            "machinery on the held-out questions"
        )
    train = read_split(config, train_file, root / config.train_databases, "train", config.train_limit)
    heldout = read_split(config, heldout_file, root / config.heldout_databases, "heldout", config.heldout_limit)
    return TaskSet(
        warmup=train.tasks, train=train.tasks, heldout=heldout.tasks, dropped=train.dropped + heldout.dropped
    )


def read_split(
    config: BirdData, file: Path, folder: Path, split: Literal["train", "heldout"], limit: int | None
) -> Loaded:
    """The tasks of one question file, with evidence and difficulty where given. Raises DataError."""
    tasks: list[SqlTask] = []
    dropped: list[Dropped] = []
    for record in limited(read_json_list(file), limit):
        db_id = record.text("db_id")
        task_id = f"bird-{split}-{record.index}"
        databases = instance_files(folder, db_id)
        if not databases:
            detail = f"{record.where}: no file {folder / db_id / db_id}.sqlite"
            dropped.append(Dropped(id=task_id, reason="database missing", detail=detail))
            continue
        tasks.append(
            SqlTask(
                id=task_id,
                db_id=db_id,
                question=record.text("question"),
                evidence=record.optional_text("evidence"),
                gold_sqls=(record.text("SQL"),),
                databases=databases,
                denotation=config.denotation,
                split=split,
                difficulty=record.optional_text("difficulty") or None,
            )
        )
    return Loaded(tasks=tuple(tasks), dropped=tuple(dropped))
