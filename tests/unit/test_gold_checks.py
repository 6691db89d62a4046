"""Gold checks on real databases: what fails, what exceeds its budget, and what stays."""

import sqlite3
from pathlib import Path

import pytest

from conf.load import load
from conf.schema.reward import BudgetConfig, ExecutionReward, RewardConfig
from conf.schema.root import TrainConfig
from rewards.carriers import SqlTask
from rewards.scorer import Scorer
from rewards.sql.executor import ExecutorPool
from rewards.verdicts import CHECKED_TOGETHER
from rollout.carriers import Prompt
from rollout.prompt import PromptTooLong
from rollout.tasks.check import check_golds, check_prompts
from tests.unit.losing_pool import LosingPool

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


def reward(**execution: object) -> RewardConfig:
    return RewardConfig(execution=ExecutionReward.model_validate(execution))


def strict(**execution: object) -> RewardConfig:
    """conf/reward/strict.yaml."""
    config = load(TrainConfig, "train", ["reward=strict"]).reward
    return config.model_copy(update={"execution": config.execution.model_copy(update=execution)})


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
        checked = check_golds(tasks, pool=pool, reward=reward(budget=budget))
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
        primary = check_golds(tasks, pool=pool, reward=reward())
        everywhere = check_golds(tasks, pool=pool, reward=reward(instances="all"))
        # An empty answer is decided on all instances, so they are asked.
        where_empty_counts = check_golds(tasks, pool=pool, reward=strict())
    assert len(primary.tasks) == 1
    assert [d.reason for d in everywhere.dropped] == ["gold fails"]
    assert [d.reason for d in where_empty_counts.dropped] == ["gold fails"]


@pytest.fixture
def pack(tmp_path) -> str:
    """Dogs of which two are three years old: who is first among them hangs on scan order."""
    file = tmp_path / "pack.sqlite"
    connection = sqlite3.connect(file)
    connection.executescript(
        "CREATE TABLE dog (name TEXT, age INTEGER);INSERT INTO dog VALUES ('Rex', 3), ('Ace', 3), ('Pip', 5);"
    )
    connection.close()
    return str(file)


@pytest.mark.parametrize("unordered", ["SELECT name FROM dog LIMIT 1", "SELECT name FROM dog LIMIT 2 OFFSET 1"])
def test_golds_that_hang_on_scan_order_are_dropped_where_the_reward_does_not_score_against_them(pack, unordered):
    tasks = [
        task("steady", (pack,), "SELECT name FROM dog"),
        task("unordered", (pack,), unordered),
        task("half", (pack,), unordered, "SELECT name FROM dog ORDER BY age DESC LIMIT 1"),
        task("none", (pack,), unordered, "SELECT size FROM dog"),
    ]
    with ExecutorPool(1) as pool:
        published = check_golds(tasks, pool=pool, reward=reward())
        ours = check_golds(tasks, pool=pool, reward=strict())
        scorer = Scorer(strict(), pool)
        asked = {one.id: scorer.check_gold(one) for one in tasks}
        kept = [scorer.check_gold(one) for one in ours.tasks]
    assert [t.id for t in published.tasks] == ["steady", "unordered", "half", "none"]
    assert [(t.id, len(t.gold_sqls)) for t in ours.tasks] == [("steady", 1), ("half", 1)]
    assert [(d.id, d.reason) for d in ours.dropped] == [
        ("unordered", "gold order-dependent"),
        ("half gold 1", "gold order-dependent"),
        ("none", "gold order-dependent"),
    ]
    assert ours.dropped[0].detail == "its rows depend on scan order"
    # The check and the scorer agree: what is kept can be scored, what is dropped cannot, and is nobody's failure.
    assert {name for name, check in asked.items() if not check.usable} == {"unordered", "none"}
    assert not any(check.infrastructure for check in asked.values())
    assert all(check.usable and check.faults == (None,) for check in kept)


def test_a_task_of_which_a_gold_was_lost_is_left_out_whole(databases):
    primary = databases[:1]
    tasks = [task("lost", primary, "SELECT name FROM dog", "SELECT age FROM dog"), task("other", primary, "SELECT 1")]
    with LosingPool(1) as pool:
        pool.loses = lambda query: query.sql == "SELECT age FROM dog"
        checked = check_golds(tasks, pool=pool, reward=reward())
    assert [t.id for t in checked.tasks] == ["other"]
    assert [(d.id, d.reason, d.detail) for d in checked.dropped] == [("lost", "gold unscorable", "lost")]


def test_a_further_instance_that_cannot_be_read_matters_where_it_is_asked(databases, tmp_path):
    (tmp_path / "text.sqlite").write_text("no database")
    tasks = [task("one", (databases[0], str(tmp_path / "text.sqlite")), "SELECT age FROM dog")]
    with ExecutorPool(1) as pool:
        assert len(check_golds(tasks, pool=pool, reward=reward()).tasks) == 1
        assert [d.reason for d in check_golds(tasks, pool=pool, reward=strict()).dropped] == ["gold unscorable"]


def test_many_tasks_are_checked_some_at_a_time_and_keep_their_order(databases):
    class Counting(ExecutorPool):
        largest = 0

        def each(self, queries, take):
            self.largest = max(self.largest, len(queries))
            return super().each(queries, take)

    tasks = [task(str(n), databases[:1], f"SELECT name, {n} FROM dog") for n in range(3 * CHECKED_TOGETHER + 1)]
    with Counting(1) as pool:
        checked = check_golds(tasks, pool=pool, reward=strict(instances="primary"))
        assert 0 < pool.largest <= 4 * CHECKED_TOGETHER
    assert list(checked.tasks) == tasks


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
        checked = check_golds([task("writes", databases[:1], "DELETE FROM dog")], pool=pool, reward=reward())
    assert [d.reason for d in checked.dropped] == ["gold fails"]
    assert Path(databases[0]).read_bytes() == before
