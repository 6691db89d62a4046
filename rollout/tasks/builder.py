"""The table of task sources.

A new source is one file with a loader, one schema variant in conf/schema/data.py and one line here.
"""

from collections.abc import Callable
from typing import Any

from conf.schema.data import DataConfig
from rollout.tasks.bird import load_bird
from rollout.tasks.carriers import DataError, TaskSet
from rollout.tasks.demo import load_demo
from rollout.tasks.jsonl import load_jsonl
from rollout.tasks.spider import load_spider

LOADERS: dict[str, Callable[[Any], TaskSet]] = {
    "demo": load_demo,
    "spider": load_spider,
    "bird": load_bird,
    "jsonl": load_jsonl,
}


def load_tasks(config: DataConfig) -> TaskSet:
    """Tasks of all splits, before gold and prompt checks. Raises DataError, also when no training task remains."""
    tasks = LOADERS[config.type](config)
    if not tasks.train:
        reasons = "; ".join(f"{count} x {reason}" for reason, count in tasks.dropped_counts().items())
        first = f" (first: {tasks.dropped[0].id}: {tasks.dropped[0].detail})" if tasks.dropped else ""
        raise DataError(f"data={config.type}: no training task remains: {reasons or 'the file is empty'}{first}")
    return tasks
