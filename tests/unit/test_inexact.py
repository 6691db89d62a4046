"""Sums of reals: last bits do not count where they are sums, for golds and for votes."""

import itertools
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.schema.reward import BudgetConfig, ExecutionReward
from rewards.carriers import Execution, Value
from rewards.components.execution import Candidate, ExecutionJudge
from rewards.sql.agreement import Result, agreed, agreeing
from rewards.sql.executor import ExecutorPool
from rewards.sql.gold import GoldStore
from rewards.sql.gold_answer import Gold
from rewards.sql.inexact import inexact_views, near, settled, sums_inexactly
from rewards.sql.query import Query

BUDGET = BudgetConfig()
Policy = Literal["bird", "spider"]
THIRD = 0.1 + 0.2


@pytest.fixture(scope="module")
def pool() -> Iterator[ExecutorPool]:
    with ExecutorPool(1) as executors:
        yield executors


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Prices whose sum depends on the order, in three kinds."""
    path = tmp_path_factory.mktemp("shop") / "shop.sqlite"
    draw = random.Random(4)
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE item (id INTEGER PRIMARY KEY, kind TEXT, price REAL)")
        rows = [(f"k{i % 3}", draw.uniform(-1e6, 1e6)) for i in range(1000)]
        connection.executemany("INSERT INTO item (kind, price) VALUES (?, ?)", rows)
        connection.execute("CREATE VIEW turnover AS SELECT kind, sum(price) AS total FROM item GROUP BY kind")
        connection.execute("CREATE VIEW best AS SELECT max(total) AS top FROM turnover")
        connection.execute("CREATE VIEW plain AS SELECT kind FROM item")
    connection.close()
    return str(path)


def run(pool: ExecutorPool, database: str, *sqls: str) -> list[Execution]:
    return pool.run([Query(database=database, sql=sql, budget=BUDGET) for sql in sqls])


def gold_of(pool: ExecutorPool, database: str, sql: str, policy: Policy) -> Gold:
    (gold,) = GoldStore(pool, BUDGET).results([sql], [database], policy)
    assert gold.usable, gold.reason
    return gold


BACKWARDS = "(SELECT * FROM item ORDER BY id DESC LIMIT 1000)"


@pytest.mark.parametrize(
    ("sql", "answer", "right"),
    [
        ("SELECT sum(price) FROM item", f"SELECT sum(price) FROM {BACKWARDS}", True),
        ("SELECT sum(price) FROM item", "SELECT sum(s) FROM (SELECT sum(price) s FROM item GROUP BY kind)", True),
        ("SELECT sum(price) FROM item", "SELECT sum(price) + 1 FROM item", False),
        ("SELECT sum(price - 0.0) - sum(price) FROM item", "SELECT 0", True),
        (
            "SELECT kind, avg(price) FROM item GROUP BY kind",
            f"SELECT kind, avg(price) FROM {BACKWARDS} GROUP BY 1",
            True,
        ),
        ("SELECT kind, avg(price) FROM item GROUP BY 1", "SELECT 'k0', avg(price) FROM item GROUP BY kind", False),
        ("SELECT total FROM turnover", f"SELECT sum(price) FROM {BACKWARDS} GROUP BY kind", True),
        ("SELECT top FROM best", f"SELECT max(s) FROM (SELECT sum(price) s FROM {BACKWARDS} GROUP BY kind)", True),
        ("WITH s AS (SELECT total(price) t FROM item) SELECT t FROM s", f"SELECT sum(price) FROM {BACKWARDS}", True),
        (
            "SELECT DISTINCT sum(price) OVER () FROM item",
            f"SELECT sum(price) FROM {BACKWARDS}",
            True,
        ),
        ("SELECT 0.1 + 0.2", "SELECT 0.3", False),
        ("SELECT count(*), 0.1 + 0.2 FROM item", "SELECT 1000, 0.3", False),
    ],
)
@pytest.mark.parametrize("policy", ["bird", "spider"])
def test_only_sums_have_a_tolerance(
    pool: ExecutorPool, shop: str, sql: str, answer: str, right: bool, policy: Policy
) -> None:
    gold = gold_of(pool, shop, sql, policy)
    assert (gold.order_dependent, gold.order_unknown) == (False, False)
    (execution,) = run(pool, shop, answer)
    assert execution.status == "ok", execution.error
    assert gold.accepts(0, execution, policy=policy) is right


def test_sorted_sums_keep_their_order_and_their_columns_may_move(pool: ExecutorPool, shop: str) -> None:
    sql = "SELECT kind, sum(price) FROM item GROUP BY kind ORDER BY 2"
    gold = gold_of(pool, shop, sql, "spider")
    moved, wrong = run(
        pool,
        shop,
        f"SELECT sum(price), kind FROM {BACKWARDS} GROUP BY kind ORDER BY 1",
        f"SELECT sum(price), kind FROM {BACKWARDS} GROUP BY kind ORDER BY 1 DESC",
    )
    assert gold.accepts(0, moved, policy="spider")
    assert not gold.accepts(0, wrong, policy="spider")


def test_sums_that_are_equal_but_for_their_last_bits_tie(pool: ExecutorPool, tmp_path: Path) -> None:
    """0.1 + 0.2 + 0.3 in two orders differ; which comes first is no part of the answer."""
    path = tmp_path / "t.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (g TEXT, x REAL)")
        connection.executemany("INSERT INTO t VALUES (?, ?)", [("a", v) for v in (0.1, 0.2, 0.3)])
        connection.executemany("INSERT INTO t VALUES (?, ?)", [("b", v) for v in (0.3, 0.2, 0.1)])
    connection.close()
    gold = gold_of(pool, str(path), "SELECT g FROM t GROUP BY g ORDER BY sum(x) LIMIT 1", "bird")
    assert not gold.order_dependent
    for group in "ab":
        assert gold.accepts(0, Execution(status="ok", columns=("g",), rows=((group,),)), policy="bird")


@pytest.mark.parametrize(
    ("sql", "inexact"),
    [
        ("SELECT sum(x) FROM t", True),
        ("SELECT SUM (x) FROM t", True),
        ('SELECT "total"(x) FROM t', True),
        ("SELECT avg(x) OVER (ORDER BY y) FROM t", True),
        ("SELECT a FROM (SELECT AVG(x) AS a FROM t)", True),
        ("SELECT sum FROM t", False),
        ("SELECT 'sum(x)', max(x) FROM t", False),
        ("SELECT group_concat(x) FROM t", False),
        ("SELECT ★", True),
        ("SELECT * FROM V", True),
        ('SELECT * FROM "v"', True),
        ("SELECT 'v'", False),
    ],
)
def test_what_holds_sums(sql: str, inexact: bool) -> None:
    assert sums_inexactly(sql, {"v"}) is inexact


def test_views_hold_sums_through_other_views(shop: str) -> None:
    assert inexact_views(shop) == {"turnover", "best"}


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        (1e15, 1e15 + 0.5, True),
        (1.0, 1.0 + 1e-6, False),
        (0.0, 1e-12, True),
        (3, 3.0000000000000004, True),
        (float("inf"), float("inf"), True),
        (float("inf"), 1e308, False),
    ],
)
def test_near(left: float, right: float, same: bool) -> None:
    assert near(left, right) is same


def test_integers_stay_exact_beside_sums() -> None:
    assert settled([[(10**12,)], [(10**12 + 1,)], [(0.5,)]], [True] * 3)[:2] == [[(10**12,)], [(10**12 + 1,)]]
    first, second = settled([[(3,)], [(3.0000000000000004,)]], [True, True])
    assert tuple(first) == tuple(second)


def test_floats_that_are_no_sums_are_joined_only_by_a_sum_near_both() -> None:
    def classes(*tables: tuple[float, bool]) -> int:
        return len({t[0] for t in settled([[(v,)] for v, _ in tables], [on for _, on in tables])})

    assert classes((THIRD, False), (0.3, False), (7.5, True)) == 3
    assert classes((THIRD, False), (0.3, False), (THIRD, True)) == 1


NUMBERS = st.sampled_from([1.0, 1.0 + 2e-16, 1.0 + 6e-10, 1.0 + 12e-10, 2.0, 2, 0.0, 1e-17, 3.5])
ROWS = st.lists(st.tuples(st.sampled_from("ab"), NUMBERS), min_size=1, max_size=4)


@settings(max_examples=100, deadline=None)
@given(st.lists(ROWS, min_size=2, max_size=5), st.randoms(use_true_random=False), st.sampled_from(["bird", "spider"]))
def test_votes_are_grouped_by_components_in_whatever_order(
    tables: list[list[tuple[Value, ...]]], rng: random.Random, policy: Policy
) -> None:
    results = [Result(rows=tuple(rows), ordered=False, inexact=True) for rows in tables]
    order = rng.sample(range(len(results)), len(results))
    digests = agreed(results, policy)
    moved = agreed([results[i] for i in order], policy)

    def partition(labels: list[str | None]) -> set[frozenset[int]]:
        return {frozenset(i for i, other in enumerate(labels) if other == label) for label in labels}

    assert partition(digests) == {frozenset(order[i] for i in part) for part in partition(moved)}
    for i, j in itertools.combinations(range(len(tables)), 2):
        pairs = list(itertools.permutations(tables[j]))
        rows = [dict.fromkeys(table) for table in (tables[i], tables[j])]
        if len(tables[i]) == len(tables[j]) and any(
            all(a[0] == b[0] and near(a[1], b[1]) for a, b in zip(tables[i], pair, strict=True))  # type: ignore[arg-type]
            for pair in pairs
        ):
            assert digests[i] == digests[j], rows


def test_shuffled_sums_agree_whatever_their_order() -> None:
    """Tolerance does not depend on how rows sort: nearly equal keys lie on both sides of each other."""
    draw = random.Random(1)
    rows: list[tuple[float, str]] = [(1.0 + draw.choice((-2, -1, 0, 1, 2)) * 1e-16, name) for name in "abcdefgh" * 5]
    noisy = [(value * (1 + draw.choice((-1, 1)) * 2e-16), name) for value, name in rows]
    draw.shuffle(noisy)
    one, other = agreed([Result(rows=tuple(r), ordered=False, inexact=True) for r in (rows, noisy)], "spider")
    assert one == other


def test_candidates_that_add_in_another_order_vote_together(pool: ExecutorPool, shop: str) -> None:
    sqls = (
        "SELECT sum(price) FROM item",
        f"SELECT sum(price) FROM {BACKWARDS}",
        "SELECT sum(s) FROM (SELECT sum(price) s FROM item GROUP BY kind)",
        "SELECT max(price) FROM item",
        "SELECT nothing FROM item",
    )
    runs = dict(zip(sqls, run(pool, shop, *sqls), strict=True))
    assert len({runs[sql].rows for sql in sqls[:3]}) > 1
    digests = agreeing(runs, "bird", database=shop)
    assert len({digests[sql] for sql in sqls[:3]}) == 1
    assert digests[sqls[3]] not in (None, digests[sqls[0]])
    assert digests[sqls[4]] is None


def test_long_texts_beside_a_real_are_not_kept_with_the_verdict(pool: ExecutorPool, shop: str) -> None:
    judge = ExecutionJudge(pool, ExecutionReward(), empty_needs_empty_everywhere=False)
    sqls = ["SELECT sum(price) FROM item", "SELECT sum(price), printf('%.*c', 100000, 'x') FROM item"]
    golds = GoldStore(pool, BUDGET).results(sqls[:1], [shop], "bird")
    candidates = [Candidate(sql=sql, golds=golds, databases=[shop], policy="bird") for sql in sqls]
    short, long = judge.judge(candidates)
    assert short.reals is not None
    assert (long.level, long.reals) == (1, None)
