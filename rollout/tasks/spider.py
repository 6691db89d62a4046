"""Spider in its published layout: ROOT/train_spider.json, ROOT/dev.json, ROOT/database/<db_id>/*.sqlite.

Every *.sqlite of a database folder is an instance (the test-suite release adds many), `<db_id>.sqlite` the primary one.
"""

from pathlib import Path
from typing import Literal

from conf.schema.data import SpiderData
from rewards.carriers import SqlTask
from rewards.sql.files import instance_files
from rollout.tasks.carriers import DataError, Dropped, TaskSet
from rollout.tasks.records import Loaded, limited, read_json_list


def load_spider(config: SpiderData) -> TaskSet:
    """Train and held-out tasks; the train tasks are also the warm-up's. Raises DataError."""
    root = Path(config.root)
    train_file, heldout_file = root / config.train_file, root / config.heldout_file
    if not train_file.is_file() and heldout_file.is_file():
        raise DataError(
            f"{train_file} is missing and only {config.heldout_file} is there: add the training file, or set "
            f"data.train_file={config.heldout_file} to try the machinery on the held-out questions"
        )
    train = read_split(config, train_file, "train", config.train_limit)
    heldout = read_split(config, heldout_file, "heldout", config.heldout_limit)
    return TaskSet(
        warmup=train.tasks, train=train.tasks, heldout=heldout.tasks, dropped=train.dropped + heldout.dropped
    )


def read_split(config: SpiderData, file: Path, split: Literal["train", "heldout"], limit: int | None) -> Loaded:
    """The tasks of one question file. Raises DataError."""
    folder = Path(config.root) / config.database_folder
    tasks: list[SqlTask] = []
    dropped: list[Dropped] = []
    for record in limited(read_json_list(file), limit):
        db_id = record.text("db_id")
        task_id = f"spider-{split}-{record.index}"
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
                gold_sqls=(record.text("query"),),
                databases=databases,
                denotation=config.denotation,
                split=split,
            )
        )
    return Loaded(tasks=tuple(tasks), dropped=tuple(dropped))
