"""The demo source: reproducible databases and questions, disjoint splits, a teacher wrong as often as it says."""

import sqlite3
from collections import Counter

import pytest

from conf.schema.data import DemoData
from rollout.tasks import DataError, load_tasks
from rollout.tasks.demo.databases import build_databases
from rollout.tasks.demo.domains import DOMAINS
from rollout.tasks.demo.questions import distinct_questions
from rollout.tasks.demo.spec import Condition, Spec, question, sql
from rollout.tasks.demo.teacher import MISTAKE_SHARE, MISTAKES, answer, invited_mistakes


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def tasks(root):
    return load_tasks(DemoData(root=str(root), warmup_size=1500, train_size=300, heldout_size=100))


def run(task_database: str, query: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(task_database)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def test_splits_share_neither_question_nor_gold(tasks):
    splits = (tasks.warmup, tasks.train, tasks.heldout)
    assert [len(split) for split in splits] == [1500, 300, 100]
    everything = [task for split in splits for task in split]
    assert len({task.question for task in everything}) == 1900
    assert len({task.gold_sqls[0] for task in everything}) == 1900
    assert len({task.id for task in everything}) == 1900


def test_the_same_seed_gives_the_same_tasks_and_another_seed_others(root, tasks):
    config = DemoData(root=str(root), warmup_size=1500, train_size=300, heldout_size=100)
    assert load_tasks(config) == tasks
    other = load_tasks(config.model_copy(update={"seed": 1}))
    assert len({t.question for t in other.heldout} & {t.question for t in tasks.heldout}) < 20


def test_databases_are_rebuilt_with_the_same_rows(tmp_path):
    first = build_databases(tmp_path / "a", seed=3)
    second = build_databases(tmp_path / "b", seed=3)
    for db_id, instances in first.items():
        assert len(instances) == 2
        for one, other in zip(instances, second[db_id], strict=True):
            dumps = [list(sqlite3.connect(file).iterdump()) for file in (one, other)]
            assert dumps[0] == dumps[1]
    rows = [run(path, "SELECT * FROM author") for path in first["bookshop"]]
    assert len(rows[0]) == 32
    assert rows[0] != rows[1]


def test_an_interrupted_build_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr("rollout.tasks.demo.databases.Database", fail)
    with pytest.raises(DataError, match="disk full"):
        build_databases(tmp_path / "demo", seed=0)
    assert list((tmp_path / "demo").iterdir()) == []


def test_every_gold_answers_with_rows(tasks):
    for task in tasks.heldout:
        rows = run(task.databases[0], task.gold_sqls[0])
        assert rows, task.gold_sqls[0]
        assert rows[0] != (None,)


def test_renderings_of_a_join():
    airline = DOMAINS[1]
    spec = Spec(
        kind="join_aggregate",
        domain=airline,
        entity=airline.child,
        filtered=airline.parent,
        conditions=(
            Condition(column="base", operator="=", value="Oslo"),
            Condition(column="age", operator=">=", value=40),
        ),
        number="seats",
        aggregate="avg",
    )
    assert question(spec) == (
        "What is the average seats of flights whose pilot is one with base Oslo and age at least 40?"
    )
    assert sql(spec) == (
        "SELECT avg(flight.seats) FROM flight JOIN pilot ON flight.pilot_id = pilot.pilot_id "
        "WHERE pilot.base = 'Oslo' AND pilot.age >= 40"
    )
    assert invited_mistakes(spec) == ("strict_bound", "sum_for_average")


def test_the_teacher_errs_on_the_promised_share_of_each_kind():
    specs = distinct_questions(0, 6000)
    invited: Counter[str] = Counter()
    made: Counter[str] = Counter()
    for spec in specs:
        names = invited_mistakes(spec)
        if len(names) == 1:
            invited[names[0]] += 1
            wrong = answer(spec, seed=0).sql
            assert wrong in (sql(spec), sql(MISTAKES[names[0]](spec)))
            made[names[0]] += wrong != sql(spec)
        elif not names:
            assert answer(spec, seed=0).sql == sql(spec)
    assert set(invited) == set(MISTAKES)
    for name, count in invited.items():
        assert made[name] / count == pytest.approx(MISTAKE_SHARE, abs=0.08)


def test_mistakes_change_the_answer_of_simple_lists(tasks):
    specs = [s for s in distinct_questions(0, 1900) if s.kind in ("list", "top") and invited_mistakes(s)]
    primary = {task.db_id: task.databases[0] for task in tasks.heldout}
    changed = 0
    for spec in specs:
        wrong = MISTAKES[invited_mistakes(spec)[-1]](spec)
        path = primary[spec.domain.db_id]
        changed += sorted(run(path, sql(spec))) != sorted(run(path, sql(wrong)))
    assert changed / len(specs) > 0.9


def test_too_many_questions_are_refused_with_the_settings_to_lower(root, monkeypatch):
    monkeypatch.setattr("rollout.tasks.demo.questions._MAX_REJECTED_IN_A_ROW", 0)
    with pytest.raises(DataError, match=r"yield about \d+ different questions.*lower data.warmup_size"):
        load_tasks(DemoData(root=str(root), warmup_size=10_000_000))
