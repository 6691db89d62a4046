"""What may be imitated, trained and evaluated on: tasks with a database that can be read and a gold that runs."""

import sqlite3
from pathlib import Path

import pytest

from conf.load import load
from conf.schema.root import TrainConfig
from conf.schema.stages import EvaluationConfig
from rewards.carriers import SqlTask
from rewards.sql.schema import DatabaseUnreadable
from rollout.prompt.described import SchemaReader
from rollout.tasks import DataError, TaskSet, Trace
from trainer.data import check_heldout, checked


@pytest.fixture
def config() -> TrainConfig:
    return load(TrainConfig, "train", ["experiment=quickstart", "prompt.example_values=2"])


@pytest.fixture
def dogs(tmp_path) -> str:
    file = tmp_path / "dogs.sqlite"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE dog (name TEXT)")
    connection.close()
    return str(file)


def task(name: str, database: str, gold: str = "SELECT name FROM dog") -> SqlTask:
    return SqlTask(id=name, db_id="dogs", question="q", gold_sqls=(gold,), databases=(database,))


def names(tasks: tuple[SqlTask, ...]) -> list[str]:
    return [task.id for task in tasks]


def test_a_broken_gold_is_neither_imitated_nor_trained_on(config, dogs, tmp_path):
    (tmp_path / "text.sqlite").write_text("no database")
    train = (
        task("good", dogs),
        task("fails", dogs, "SELECT size FROM dog"),
        task("unreadable", str(tmp_path / "text.sqlite")),
    )
    heldout = (task("asked", dogs), task("broken", dogs, "SELECT"))
    usable = checked(config, TaskSet(warmup=train, train=train, heldout=heldout))
    assert names(usable.warmup) == names(usable.train) == ["good"]
    assert names(usable.heldout) == ["asked"]
    assert {entry.id: entry.reason for entry in usable.dropped} == {
        "fails": "gold fails",
        "unreadable": "database unreadable",
        "broken": "gold fails",
    }


def test_a_warm_up_split_is_imitated_through_its_traces_and_otherwise_through_golds_that_run(config, dogs):
    traced, untraced = task("traced", dogs, "SELECT size FROM dog"), task("untraced", dogs, "SELECT size FROM dog")
    tasks = TaskSet(
        warmup=(traced, untraced, task("fine", dogs)),
        train=(task("good", dogs),),
        heldout=(),
        traces={"traced": Trace(reasoning="", sql="SELECT name FROM dog")},
    )
    usable = checked(config, tasks)
    assert names(usable.warmup) == ["traced", "fine"]
    assert [entry.id for entry in usable.dropped] == ["untraced"]


def test_training_and_held_out_tasks_are_each_asked_by_the_rule_that_will_judge_them(dogs):
    with sqlite3.connect(dogs) as connection:
        connection.execute("INSERT INTO dog VALUES ('Rex'), ('Ace')")
    connection.close()
    first = "SELECT name FROM dog LIMIT 1"
    tasks = (task("steady", dogs), task("unordered", dogs, first))
    heldout = (task("asked", dogs, first), task("broken", dogs, "SELECT"))
    given = TaskSet(warmup=tasks, train=tasks, heldout=heldout)
    strict = checked(load(TrainConfig, "train", ["experiment=quickstart", "reward=strict"]), given)
    assert names(strict.train) == names(strict.warmup) == ["steady"]
    assert names(strict.heldout) == ["asked"]
    assert [(d.id, d.reason) for d in strict.dropped] == [
        ("unordered", "gold order-dependent"),
        ("broken", "gold fails"),
    ]
    finer = checked(load(TrainConfig, "train", ["experiment=quickstart", "reward=finer"]), given)
    assert names(finer.train) == ["steady", "unordered"]


def test_a_run_without_a_usable_training_task_names_the_first_reason(config, dogs):
    train = (task("fails", dogs, "SELECT size FROM dog"),)
    with pytest.raises(DataError, match=r"no training task remains of 1; first: gold fails \(no such column: size"):
        checked(config, TaskSet(warmup=train, train=train, heldout=()))


@pytest.mark.parametrize("asked", [{"before": True}, {"after": True}, {"every": 20}])
def test_evaluations_without_held_out_tasks_are_refused_with_what_to_set(asked):
    off = {"before": False, "after": False, "every": 0}
    check_heldout(EvaluationConfig(**off), ())
    with pytest.raises(DataError, match="evaluation=none evaluation.every=0"):
        check_heldout(EvaluationConfig(**(off | asked)), ())


def test_a_damaged_table_makes_the_database_unreadable(tmp_path):
    """The schema is whole, the pages of its rows are not."""
    file = tmp_path / "damaged.sqlite"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE dog (name TEXT)")
        connection.executemany("INSERT INTO dog VALUES (?)", [("x" * 30,)] * 1000)
    connection.close()
    content = bytearray(Path(file).read_bytes())
    content[4096:8192] = b"\xff" * 4096
    file.write_bytes(content)
    assert len(SchemaReader(0).read(str(file))) == 1
    with pytest.raises(DatabaseUnreadable, match=r"example values of .*damaged.sqlite cannot be read"):
        SchemaReader(2).read(str(file))
