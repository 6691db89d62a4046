"""Ties of sorted golds: rows with equal sort keys may exchange, others may not, on real databases."""

import random
import sqlite3
import tempfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conf.schema.reward import BudgetConfig
from rewards.carriers import Execution, Value
from rewards.sql import ties
from rewards.sql.executor import ExecutorPool
from rewards.sql.gold import GoldStore
from rewards.sql.gold_answer import Gold
from rewards.sql.query import Query

BUDGET = BudgetConfig(vm_steps=2_000_000, rows=10_000)
Policy = Literal["bird", "spider"]


@pytest.fixture(scope="module")
def pool() -> Iterator[ExecutorPool]:
    with ExecutorPool(1) as executors:
        yield executors


@pytest.fixture(scope="module")
def dogs(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Ages tie, two names differ by case alone in a column that ignores it, and one age is not known."""
    path = tmp_path_factory.mktemp("dogs") / "dogs.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute(
            "CREATE TABLE dog (id INTEGER PRIMARY KEY, name TEXT COLLATE NOCASE, age INTEGER, kind INTEGER)"
        )
        rows = [("Rex", 3, 1), ("Ada", 5, 1), ("ada", 5, 2), ("Bo", 3, 2), ("Cy", 7, 1), ("Di", None, 2), ("Ed", 1, 1)]
        connection.executemany("INSERT INTO dog (name, age, kind) VALUES (?, ?, ?)", rows)
        connection.execute("CREATE TABLE owner (id INTEGER PRIMARY KEY, kind INTEGER, total INTEGER)")
        connection.executemany("INSERT INTO owner (kind, total) VALUES (?, ?)", [(1, 10), (2, 20)])
    connection.close()
    return str(path)


def gold_of(pool: ExecutorPool, database: str, sql: str, policy: Policy) -> Gold:
    (gold,) = GoldStore(pool, BUDGET).results([sql], [database], policy)
    assert gold.usable, gold.reason
    return gold


def accepted(pool: ExecutorPool, database: str, sql: str, answer: str, policy: Policy) -> bool:
    gold = gold_of(pool, database, sql, policy)
    (execution,) = pool.run([Query(database=database, sql=answer, budget=BUDGET)])
    assert execution.status == "ok", execution.error
    return gold.accepts(0, execution, policy=policy)


@pytest.mark.parametrize(
    ("sql", "right", "wrong"),
    [
        ("SELECT name, age FROM dog ORDER BY age", "{} , id DESC", "SELECT name, age FROM dog ORDER BY age DESC, id"),
        # an ordinal, an alias, an alias in brackets, an expression over an alias, a column that wins over an alias
        ("SELECT id, age FROM dog ORDER BY 2", "{}, id DESC", "SELECT id, age FROM dog ORDER BY id"),
        ("SELECT id, age AS a FROM dog ORDER BY a", "{}, id DESC", "SELECT id, age FROM dog ORDER BY id"),
        ("SELECT id, age AS a FROM dog ORDER BY (a) DESC", "{}, id DESC", "SELECT id, age FROM dog ORDER BY id"),
        ("SELECT id, age AS a FROM dog ORDER BY a / 4", "{}, id DESC", "SELECT id, age FROM dog ORDER BY id"),
        ('SELECT id, age AS a FROM dog ORDER BY "a" / 4', "{}, id DESC", "SELECT id, age FROM dog ORDER BY id"),
        ("SELECT id, kind AS age FROM dog ORDER BY age + 0", "{}, id DESC", "SELECT id, kind FROM dog ORDER BY kind"),
        ("SELECT id FROM dog ORDER BY +1", "{}, id DESC", "SELECT id FROM dog ORDER BY id DESC"),
        ("SELECT *, age AS a FROM dog ORDER BY a", "{}, id DESC", "SELECT *, age FROM dog ORDER BY id"),
        # how the keys compare: a column that ignores case, COLLATE, where NULLs stand
        ("SELECT name, id FROM dog ORDER BY name", "{}, id DESC", "SELECT name, id FROM dog ORDER BY name DESC, id"),
        (
            "SELECT lower(name), id FROM dog ORDER BY name || '' COLLATE NOCASE",
            "{}, id DESC",
            "SELECT lower(name), id FROM dog ORDER BY id",
        ),
        ("SELECT id FROM dog ORDER BY age DESC NULLS FIRST", "{}, id DESC", "SELECT id FROM dog ORDER BY age DESC, id"),
        # groups, sets, common tables, windows as keys
        (
            "SELECT kind, age FROM dog GROUP BY kind, age ORDER BY count(*)",
            "SELECT kind, age FROM dog GROUP BY kind, age ORDER BY kind DESC, age DESC",
            "SELECT kind, count(*) FROM dog GROUP BY kind, age ORDER BY kind, age",
        ),
        (
            "SELECT id, age FROM dog UNION ALL SELECT id, total FROM owner ORDER BY 2",
            "SELECT * FROM (SELECT id, age FROM dog UNION ALL SELECT id, total FROM owner) ORDER BY 2, 1 DESC",
            "SELECT * FROM (SELECT id, age FROM dog UNION ALL SELECT id, total FROM owner) ORDER BY 1, 2",
        ),
        (
            "SELECT id, age FROM dog UNION SELECT id, total FROM owner ORDER BY age",
            "SELECT * FROM (SELECT id, age FROM dog UNION SELECT id, total FROM owner) ORDER BY 2, 1 DESC",
            "SELECT * FROM (SELECT id, age FROM dog UNION SELECT id, total FROM owner) ORDER BY 1, 2",
        ),
        (
            "WITH d AS (SELECT * FROM dog) SELECT id FROM d ORDER BY age",
            "{}, id DESC",
            "SELECT id FROM dog ORDER BY id",
        ),
        ("SELECT DISTINCT age, id FROM dog ORDER BY age / 4", "{}, id DESC", "SELECT age, id FROM dog ORDER BY id"),
        (
            "SELECT d.id FROM dog d, owner o WHERE d.kind = o.kind ORDER BY o.total",
            "{}, d.id DESC",
            "SELECT id FROM dog",
        ),
    ],
)
def test_rows_with_equal_keys_may_exchange_and_others_not(
    pool: ExecutorPool, dogs: str, sql: str, right: str, wrong: str
) -> None:
    gold = gold_of(pool, dogs, sql, "spider")
    assert (gold.order_dependent, gold.order_unknown) == (False, False)
    assert accepted(pool, dogs, sql, right.format(sql), "spider")
    assert not accepted(pool, dogs, sql, wrong, "spider")


@pytest.mark.parametrize(
    ("sql", "right", "wrong"),
    [
        ("SELECT id FROM dog ORDER BY age DESC LIMIT 2", ["5, 2", "5, 3"], ["2, 3", "5, 1", "5, 5", "5"]),
        ("SELECT id FROM dog ORDER BY age DESC LIMIT 1 OFFSET 1", ["2", "3"], ["5", "1"]),
        ("SELECT id FROM dog ORDER BY age DESC LIMIT 1, 2", ["2, 3", "3, 2"], ["5, 2", "2, 1"]),
        ("SELECT id FROM dog ORDER BY age DESC LIMIT 3 OFFSET 2", ["2, 1, 4", "3, 4, 1"], ["2, 3, 1", "1, 4, 6"]),
        ("SELECT kind FROM dog ORDER BY kind LIMIT 2", ["1, 1"], ["1, 2", "2, 2"]),
    ],
)
@pytest.mark.parametrize("policy", ["bird", "spider"])
def test_any_choice_among_the_ties_at_a_cut_is_right(
    pool: ExecutorPool, dogs: str, sql: str, right: list[str], wrong: list[str], policy: Policy
) -> None:
    gold = gold_of(pool, dogs, sql, policy)
    assert (gold.order_dependent, gold.order_unknown) == (False, False)

    def accepts(ids: str) -> bool:
        rows = tuple((int(number),) for number in ids.split(", "))
        return gold.accepts(0, Execution(status="ok", columns=("id",), rows=rows), policy=policy)

    assert all(accepts(ids) for ids in right)
    assert not any(accepts(ids) for ids in wrong)


def ok(*rows: tuple[Value, ...]) -> Execution:
    return Execution(status="ok", columns=("c",) * len(rows[0]), rows=rows)


def test_sets_count_duplicates_only_as_far_as_a_choice_can_have_them(pool: ExecutorPool, tmp_path: Path) -> None:
    """Two of four tied rows: a, a, b, c."""
    path = tmp_path / "t.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (x, k)")
        connection.executemany("INSERT INTO t VALUES (?, 1)", [("a",), ("a",), ("b",), ("c",)])
    connection.close()
    gold = gold_of(pool, str(path), "SELECT x FROM t ORDER BY k LIMIT 2", "bird")
    for rows, right in [("a", True), ("ab", True), ("bc", True), ("b", False), ("abc", False), ("ad", False)]:
        assert gold.accepts(0, ok(*((x,) for x in rows)), policy="bird") is right, rows
    spider = gold_of(pool, str(path), "SELECT x FROM t ORDER BY k LIMIT 2", "spider")
    for rows, right in [("aa", True), ("ba", True), ("bb", False), ("a", False)]:
        assert spider.accepts(0, ok(*((x,) for x in rows)), policy="spider") is right, rows


def test_columns_may_be_exchanged_once_for_all_groups(pool: ExecutorPool, dogs: str) -> None:
    sql = "SELECT id, kind, age FROM dog ORDER BY age"
    assert accepted(pool, dogs, sql, "SELECT age, id, kind FROM dog ORDER BY age, id DESC", "spider")
    gold = gold_of(pool, dogs, sql, "spider")
    mixed = [(row if i % 2 else (row[2], row[0], row[1])) for i, row in enumerate(gold.executions[0].rows)]
    assert not gold.accepts(0, ok(*mixed), policy="spider")


def test_a_comma_join_is_probed_within_the_budget_of_the_query(pool: ExecutorPool, tmp_path: Path) -> None:
    """Written back as CROSS JOIN, the probe would walk through a million pairs of rows."""
    path = tmp_path / "j.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE a (id INTEGER, x INTEGER)")
        connection.execute("CREATE TABLE b (id INTEGER PRIMARY KEY, y INTEGER)")
        connection.executemany("INSERT INTO a VALUES (?, ?)", [(i, i % 7) for i in range(3000)])
        connection.executemany("INSERT INTO b VALUES (?, ?)", [(i, i % 5) for i in range(3000)])
    connection.close()
    sql = "SELECT a.id FROM a, b WHERE a.id = b.id ORDER BY b.y LIMIT 3"
    assert accepted(pool, str(path), sql, f"{sql} OFFSET 5", "bird")
    inner = f"SELECT count(*) FROM a WHERE id IN ({sql}) AND x = 0"
    assert gold_of(pool, str(path), inner, "bird").order_dependent


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT name FROM (SELECT name, age FROM dog ORDER BY age DESC) LIMIT 2",
        "SELECT name FROM dog WHERE id IN (SELECT id FROM dog ORDER BY age DESC LIMIT 2)",
        "WITH old AS (SELECT * FROM dog ORDER BY age DESC LIMIT 2) SELECT id FROM old ORDER BY id",
        "SELECT id FROM (SELECT id, age FROM dog UNION SELECT id, total FROM owner ORDER BY 2 LIMIT 3)",
        "SELECT id, row_number() OVER (ORDER BY age) FROM dog",
        "SELECT id, row_number() OVER w FROM dog WINDOW w AS (ORDER BY age)",
        "SELECT id, lag(id) OVER (ORDER BY age) FROM dog",
        "SELECT id, sum(id) OVER (ORDER BY age ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) FROM dog",
        "SELECT id FROM dog WHERE kind = (SELECT kind FROM owner)",
        "SELECT id FROM dog LIMIT 2",
        "SELECT name FROM dog d WHERE id = (SELECT id FROM dog e WHERE e.age = d.age ORDER BY e.age LIMIT 1)",
        "SELECT kind, id FROM dog GROUP BY kind",
        "SELECT DISTINCT kind FROM dog ORDER BY age DESC LIMIT 1",
        # the row of an extreme that ties, lists, texts that differ by case in a column that ignores it
        "SELECT id, max(kind) FROM dog",
        "SELECT *, max(kind) FROM dog",
        "SELECT id, max(n) FROM (SELECT min(id) AS id, count(*) AS n FROM dog GROUP BY age) WHERE n = 2",
        "SELECT kind, group_concat(id) FROM dog GROUP BY kind",
        "WITH d AS (SELECT * FROM dog) SELECT json_group_array(id) FROM d GROUP BY kind",
        "SELECT name, count(*) FROM dog GROUP BY name",
        "SELECT DISTINCT name FROM dog",
        "SELECT min(name) FROM dog",
        "SELECT name FROM dog UNION SELECT name FROM dog",
        # beside an aggregate: a value or NULL, two values of which the expression makes one at either end
        "SELECT count(*), age FROM dog WHERE id IN (5, 6)",
        "SELECT count(*), id % 2 FROM dog WHERE id IN (1, 2, 3)",
        "SELECT id FROM dog WHERE kind = 1 LIMIT 3",
    ],
)
@pytest.mark.parametrize("policy", ["bird", "spider"])
def test_what_cannot_be_enumerated_is_flagged(pool: ExecutorPool, dogs: str, sql: str, policy: Policy) -> None:
    gold = gold_of(pool, dogs, sql, policy)
    assert gold.order_dependent or gold.order_unknown
    assert not gold.order_lost


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT name FROM (SELECT name, age FROM dog ORDER BY age DESC) LIMIT 1",
        "SELECT name FROM dog WHERE id IN (SELECT id FROM dog ORDER BY age DESC LIMIT 3)",
        "SELECT id, rank() OVER (ORDER BY age) FROM dog",
        "SELECT id, sum(id) OVER (ORDER BY age) FROM dog",
        "SELECT id, row_number() OVER (ORDER BY age, id) FROM dog",
        "SELECT id FROM dog WHERE kind = (SELECT max(kind) FROM owner)",
        "SELECT EXISTS (SELECT 1 FROM dog LIMIT 1)",
        "SELECT name, max(age) FROM dog",
        "SELECT o.total, d.kind, count(*) FROM dog d JOIN owner o ON d.kind = o.kind GROUP BY d.kind",
        "SELECT id FROM dog UNION SELECT id FROM owner LIMIT 100",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 5) SELECT i FROM n",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION SELECT i + 1 FROM n WHERE i < 5) SELECT i FROM n",
        "SELECT upper(name) AS u, count(*) FROM dog GROUP BY u",
        "SELECT kind, max(age), min(age) FROM dog AS d, (SELECT 1) GROUP BY kind",
        "SELECT kind, group_concat(age) FROM dog WHERE age = 3 GROUP BY kind",
        "SELECT name, max(age) FROM dog JOIN owner USING (kind) WHERE total = 10",
    ],
)
def test_what_no_order_changes_is_not_flagged(pool: ExecutorPool, dogs: str, sql: str) -> None:
    gold = gold_of(pool, dogs, sql, "spider")
    assert (gold.order_dependent, gold.order_unknown) == (False, False)


def test_a_number_behind_signs_is_a_column_to_sqlite_and_accepts_no_other_order(pool: ExecutorPool, dogs: str) -> None:
    sql = "SELECT id FROM dog ORDER BY - -1"
    assert gold_of(pool, dogs, sql, "spider").order_unknown
    assert not accepted(pool, dogs, sql, "SELECT id FROM dog ORDER BY id DESC", "spider")


def test_more_ties_than_are_fetched_are_unknown(pool: ExecutorPool, dogs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ties, "SPARE_ROWS", 3)
    gold = gold_of(pool, dogs, "SELECT kind FROM dog ORDER BY 1 LIMIT 1", "bird")
    assert (gold.order_dependent, gold.order_unknown, gold.order_lost) == (False, True, False)


TABLES = st.lists(
    st.tuples(st.sampled_from("pqrs"), st.sampled_from([None, 0, 1, 1.5, "a", "A"])), min_size=2, max_size=8
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    TABLES,
    st.sampled_from(["k", "k DESC", "k COLLATE NOCASE", "k DESC NULLS FIRST"]),
    st.none() | st.tuples(st.integers(1, 4), st.integers(0, 2)),
    st.randoms(use_true_random=False),
)
def test_executed_ties_agree_with_every_order_of_the_table(
    pool: ExecutorPool, tmp_path: Path, rows: list[tuple[Value, ...]], order: str, cut: object, rng: random.Random
) -> None:
    """The same rows stored in another order give an answer that is right; a row with another key put in is wrong."""
    sql = f"SELECT x, k FROM t ORDER BY {order}"
    if isinstance(cut, tuple):
        sql += f" LIMIT {cut[0]} OFFSET {cut[1]}"
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    paths = []
    for number in range(2):
        paths.append(folder / f"{number}.sqlite")
        with sqlite3.connect(paths[-1]) as connection:
            connection.execute("CREATE TABLE t (x, k)")
            connection.executemany("INSERT INTO t VALUES (?, ?)", rows if not number else rng.sample(rows, len(rows)))
        connection.close()
    gold = gold_of(pool, str(paths[0]), sql, "spider")
    assert (gold.order_dependent, gold.order_unknown) == (False, False)
    (other,) = pool.run([Query(database=str(paths[1]), sql=sql, budget=BUDGET)])
    assert gold.accepts(0, other, policy="spider")
    bird = gold_of(pool, str(paths[0]), sql, "bird")
    assert bird.accepts(0, other, policy="bird")

    def key(row: tuple[Value, ...]) -> str:
        return repr(row[1]).lower() if "NOCASE" in order else repr(row[1])

    groups = [list(group) for _, group in groupby(other.rows, key)]
    if len(groups) > 1:
        first, second = groups[0], groups[1]
        first[-1], second[0] = second[0], first[-1]
        moved = tuple(row for group in groups for row in group)
        assert not gold.accepts(0, Execution(status="ok", columns=("x", "k"), rows=moved), policy="spider")
