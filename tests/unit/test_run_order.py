"""What a run looks at before anything slow starts: no Ray, no warm-up, no engine is reached."""

import contextlib
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

import trainer.run
from conf.errors import QuorumError
from conf.load import load
from conf.schema.root import TrainConfig
from rollout.tasks import TaskSet
from trainer.run import run


class WarmUpReached(QuorumError):
    """Carries what would have been imitated."""


@pytest.fixture
def start(tmp_path, monkeypatch) -> Callable[..., None]:
    """start(golds, *overrides, heldout=True): a run on one question for each gold query."""
    with sqlite3.connect(tmp_path / "dogs.sqlite") as connection:
        connection.execute("CREATE TABLE dog (name TEXT)")
    connection.close()

    async def warm_up(config: TrainConfig, tasks: TaskSet, note: Callable[[str], None]) -> Path:
        raise WarmUpReached(" ".join(task.id for task in tasks.warmup))

    monkeypatch.setattr(trainer.run, "local_ray", lambda cluster: contextlib.nullcontext())
    monkeypatch.setattr(trainer.run, "warmed_up", warm_up)

    def starts(golds: dict[str, str], *overrides: str, heldout: bool = True) -> None:
        lines = [{"id": i, "question": "q", "database": "dogs.sqlite", "sql": sql} for i, sql in golds.items()]
        file = tmp_path / "questions.jsonl"
        file.write_text("\n".join(map(json.dumps, lines)))
        settings = [f"data.train={file}", *([f"data.heldout={file}"] if heldout else []), f"run.dir={tmp_path}/runs"]
        run(load(TrainConfig, "train", ["experiment=quickstart", "data=jsonl", *settings, *overrides]))

    return starts


GOLD = "SELECT name FROM dog"


def test_the_warm_up_gets_only_tasks_whose_gold_runs(start):
    with pytest.raises(WarmUpReached, match="^good$"):
        start({"good": GOLD, "broken": "SELECT size FROM dog"})


def test_evaluations_without_held_out_tasks_are_refused_before_the_warm_up(start):
    with pytest.raises(QuorumError, match="evaluation=none evaluation.every=0"):
        start({"good": GOLD}, heldout=False)
    with pytest.raises(WarmUpReached):
        start({"good": GOLD}, "evaluation=none", "evaluation.every=0", heldout=False)


def test_recorded_lengths_are_read_before_the_warm_up(start, tmp_path):
    with pytest.raises(QuorumError, match="rollout.lengths=.*none.txt: one completion length a line is expected"):
        start({"good": GOLD}, f"rollout.lengths={tmp_path}/none.txt")
