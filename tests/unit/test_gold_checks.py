"""Gold checks on real databases: what fails, what exceeds its budget, and what stays."""

import sqlite3
from pathlib import Path

import pytest

from conf.schema.reward import BudgetConfig
from rewards.carriers import SqlTask
from rewards.sql.executor import ExecutorPool
from rollout.carriers import Prompt
from rollout.prompt import PromptTooLong
from rollout.tasks.check import check_golds, check_prompts

ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"


@pytest.fixture
def databases(tmp_path) -> tuple[str, str]:
    paths = []
    for name, column in (("one", "age"), ("two", "years")):
        file = tmp_path / f"{name}.sqlite"
        connection = sqlite3.connect(file)
        connection.executescript(f"CREATE TABLE dog (name TEXT, {column} INTEGER); INSERT INTO dog VALUES ('Rex', 3);")
        connection.close()
        paths.append(str(file))
    return paths[0], paths[1]


def task(name: str, databases: tuple[str, ...], *golds: str) -> SqlTask:
    return SqlTask(id=name, db_id="dogs", question="q", gold_sqls=golds, databases=databases)


def test_broken_golds_are_dropped_with_their_reason(databases, tmp_path):
    (tmp_path / "text.sqlite").write_text("no database")
    budget = BudgetConfig(vm_steps=100_000)
    primary = databases[:1]
    tasks = [
        task("good", primary, "SELECT age FROM dog"),
        task("fails", primary, "SELECT size FROM dog"),
        task("endless", primary, ENDLESS),
        task("half", primary, "SELECT size FROM dog", "SELECT name FROM dog"),
        task("unreadable", (str(tmp_path / "text.sqlite"),), "SELECT 1 FROM dog"),
    ]
    with ExecutorPool(1) as pool:
        checked = check_golds(tasks, pool=pool, budget=budget, instances="primary")
    assert [t.id for t in checked.tasks] == ["good", "half"]
    assert checked.tasks[1].gold_sqls == ("SELECT name FROM dog",)
    reasons = {d.id: d.reason for d in checked.dropped}
    assert reasons == {
        "fails": "gold fails",
        "endless": "gold over budget",
        "half gold 1": "gold fails",
        "unreadable": "gold unscorable",
    }
    assert "size" in next(d.detail for d in checked.dropped if d.id == "fails")


def test_all_instances_decide_only_when_asked(databases):
    tasks = [task("one", databases, "SELECT age FROM dog")]
    with ExecutorPool(1) as pool:
        primary = check_golds(tasks, pool=pool, budget=BudgetConfig(), instances="primary")
        everywhere = check_golds(tasks, pool=pool, budget=BudgetConfig(), instances="all")
    assert len(primary.tasks) == 1
    assert [d.reason for d in everywhere.dropped] == ["gold fails"]


def test_prompts_that_do_not_fit_are_dropped(databases):
    def render(one: SqlTask) -> Prompt:
        if one.id == "long":
            raise PromptTooLong("task long: 90 tokens")
        return Prompt(task=one, text=one.id, token_ids=(1,))

    prompts, dropped = check_prompts([task("short", databases, "x"), task("long", databases, "x")], render)
    assert [prompt.text for prompt in prompts] == ["short"]
    assert [(d.id, d.reason, d.detail) for d in dropped] == [("long", "prompt too long", "task long: 90 tokens")]


def test_the_check_leaves_the_database_alone(databases):
    before = Path(databases[0]).read_bytes()
    with ExecutorPool(1) as pool:
        checked = check_golds(
            [task("writes", databases[:1], "DELETE FROM dog")], pool=pool, budget=BudgetConfig(), instances="primary"
        )
    assert [d.reason for d in checked.dropped] == ["gold fails"]
    assert Path(databases[0]).read_bytes() == before
