"""Spider in its published layout: ROOT/train_spider.json, ROOT/dev.json, ROOT/database/<db_id>/*.sqlite.

Every *.sqlite of a database folder is an instance (the test-suite release adds many), `<db_id>.sqlite` the primary one.
"""

from functools import partial
from pathlib import Path

from conf.schema.data import SpiderData
from rollout.tasks.carriers import DataError, TaskSet
from rollout.tasks.published import read_split


def load_spider(config: SpiderData) -> TaskSet:
    """Train and held-out tasks; the train tasks are also the warm-up's. Raises DataError."""
    root = Path(config.root)
    train_file, heldout_file = root / config.train_file, root / config.heldout_file
    if not train_file.is_file() and heldout_file.is_file():
        raise DataError(
            f"{train_file} is missing and only {config.heldout_file} is there: add the training file, or set "
            f"data.train_file={config.heldout_file} to try the machinery on the held-out questions"
        )
    databases = root / config.database_folder
    read = partial(read_split, source="spider", denotation=config.denotation)
    train = read(train_file, databases, split="train", limit=config.train_limit)
    heldout = read(heldout_file, databases, split="heldout", limit=config.heldout_limit)
    return TaskSet(
        warmup=train.tasks, train=train.tasks, heldout=heldout.tasks, dropped=train.dropped + heldout.dropped
    )
