"""BIRD in its published layout: ROOT/train/train.json + train/train_databases, ROOT/dev.json + dev_databases.

Each database is one file, <db_id>/<db_id>.sqlite; further *.sqlite files beside it count as instances.
"""

from functools import partial
from pathlib import Path

from conf.schema.data import BirdData
from rollout.tasks.carriers import DataError, TaskSet
from rollout.tasks.published import read_split


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
    read = partial(read_split, source="bird", denotation=config.denotation)
    train = read(train_file, root / config.train_databases, split="train", limit=config.train_limit)
    heldout = read(heldout_file, root / config.heldout_databases, split="heldout", limit=config.heldout_limit)
    return TaskSet(
        warmup=train.tasks, train=train.tasks, heldout=heldout.tasks, dropped=train.dropped + heldout.dropped
    )
