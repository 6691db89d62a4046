"""Gold answers: status, caching, dependence on scan order."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from conf.schema.reward import BudgetConfig
from rewards.sql import gold as gold_module
from rewards.sql.cache import BoundedCache
from rewards.sql.content import content_key
from rewards.sql.gold import GoldRequest, GoldStore
from rewards.sql.order import OrderUnknown, order_probes
from rewards.sql.query import Query
from rewards.sql.schema import DatabaseUnreadable
from tests.dogs import write_dogs
from tests.unit.counting_pool import CountingPool
from tests.unit.losing_pool import LosingPool

NESTED = "SELECT name FROM dog WHERE age IN (SELECT age FROM dog ORDER BY age LIMIT 1)"
BUDGET = BudgetConfig(vm_steps=1_000_000, rows=1000)


@pytest.fixture(scope="module")
def pool() -> Iterator[CountingPool]:
    with CountingPool(1) as executors:
        yield executors


@pytest.fixture
def dogs(tmp_path: Path) -> str:
    return write_dogs(tmp_path / "dogs.sqlite", [("a", 1), ("b", 2), ("c", 2), ("d", 3), ("d", 3)])


@pytest.mark.parametrize(
    ("sql", "dependent"),
    [
        ("SELECT name FROM dog", False),
        ("SELECT name FROM dog LIMIT 2", True),
        ("SELECT name FROM dog ORDER BY age LIMIT 1", False),
        ("SELECT name FROM dog ORDER BY age LIMIT 2", False),
        ("SELECT name FROM dog ORDER BY age LIMIT 3", False),
        ("SELECT age FROM dog ORDER BY age LIMIT 2", False),
        ("SELECT name FROM dog ORDER BY age DESC LIMIT 1", False),
        ("SELECT name FROM dog ORDER BY age LIMIT 1 OFFSET 2", False),
        ("SELECT name FROM dog ORDER BY age LIMIT 2, 1", False),
        ("SELECT name FROM dog ORDER BY 1 LIMIT 2", False),
        ("SELECT name, age AS years FROM dog ORDER BY years LIMIT 2", False),
        ("SELECT age, count(*) FROM dog GROUP BY age ORDER BY count(*) DESC LIMIT 1", False),
        ("SELECT name FROM dog WHERE name = (SELECT name FROM dog ORDER BY age LIMIT 1 OFFSET 1)", True),
        ("SELECT age FROM dog WHERE name = (SELECT name FROM dog ORDER BY age LIMIT 1 OFFSET 1)", False),
        ("WITH old AS (SELECT * FROM dog WHERE age > 1) SELECT name FROM old ORDER BY age LIMIT 1", False),
        ("SELECT DISTINCT name FROM dog ORDER BY name LIMIT 2", False),
        ("SELECT group_concat(name) FROM dog", True),
        ("SELECT name FROM dog ORDER BY random() LIMIT 1", True),
        ("SELECT name FROM (SELECT name FROM dog WHERE age < 3 ORDER BY Random() LIMIT 1)", True),
        ("SELECT name FROM dog WHERE random() % 2 = 0", True),
        ("SELECT count(*) FROM dog ORDER BY random()", False),
        ("SELECT count(*) FROM (SELECT name FROM dog ORDER BY random() LIMIT 2)", False),
    ],
)
def test_dependence_on_scan_order(pool: CountingPool, dogs: str, sql: str, dependent: bool) -> None:
    (gold,) = GoldStore(pool, BUDGET).results([sql], [dogs], "spider")
    assert gold.usable, gold.reason
    assert gold.order_dependent is dependent


def test_the_order_of_an_unparsable_query_is_unknown_where_it_speaks_of_one() -> None:
    assert order_probes("SELECT FROM WHERE", sorted_known=True) == ()
    with pytest.raises(OrderUnknown):
        order_probes("SELECT FROM WHERE LIMIT", sorted_known=True)


def test_what_random_blobs_decide_is_unknown(pool: CountingPool, dogs: str) -> None:
    (gold,) = GoldStore(pool, BUDGET).results(["SELECT name FROM dog ORDER BY randomblob(8) LIMIT 1"], [dogs], "bird")
    assert (gold.usable, gold.order_dependent, gold.order_unknown, gold.order_lost) == (True, False, True, False)


def test_a_failing_gold_is_unusable_never_empty(pool: CountingPool, dogs: str) -> None:
    store = GoldStore(pool, BUDGET)
    missing, endless = store.results(
        [
            "SELECT nothing_here FROM dog",
            "WITH RECURSIVE t(a) AS (VALUES (1) UNION ALL SELECT a+1 FROM t) SELECT sum(a) FROM t",
        ],
        [dogs],
        "bird",
    )
    assert not missing.usable
    assert "no such column" in str(missing.reason)
    assert not endless.usable
    assert endless.executions[0].error_kind == "timeout"
    assert not missing.infrastructure


def test_a_missing_database_is_infrastructure_and_not_cached(pool: CountingPool, tmp_path: Path) -> None:
    store = GoldStore(pool, BUDGET)
    path = tmp_path / "late.sqlite"
    (before,) = store.results(["SELECT name FROM dog"], [str(path)], "bird")
    assert before.infrastructure
    write_dogs(path, [("a", 1)])
    (after,) = store.results(["SELECT name FROM dog"], [str(path)], "bird")
    assert after.executions[0].rows == (("a",),)


def test_results_are_cached_by_content(pool: CountingPool, dogs: str, tmp_path: Path) -> None:
    store = GoldStore(pool, BUDGET)
    store.results(["SELECT name FROM dog"], [dogs], "bird")
    executed = pool.executed
    copy = tmp_path / "copy.sqlite"
    copy.write_bytes(Path(dogs).read_bytes())
    assert content_key(str(copy)) == content_key(dogs)
    store.results(["SELECT name FROM dog"], [str(copy)], "bird")
    assert pool.executed == executed
    other = write_dogs(tmp_path / "other.sqlite", [("z", 9)])
    (gold,) = store.results(["SELECT name FROM dog"], [other], "bird")
    assert gold.executions[0].rows == (("z",),)


@pytest.mark.parametrize("path", ["/no/such", "d" * 300, "d\0gs", "\ud83d"])
def test_a_path_that_no_file_can_have_is_an_unreadable_database(path: str) -> None:
    with pytest.raises(DatabaseUnreadable, match="no database file at"):
        content_key(path)


def test_golds_that_read_the_clock_are_kept_since_it_stands_still(pool: CountingPool, dogs: str) -> None:
    store = GoldStore(pool, BUDGET)
    sql = "SELECT strftime('%Y-%m-%d %H:%M:%f', 'now'), julianday('now') - age FROM dog"
    (first,) = store.results([sql], [dogs], "bird")
    executed = pool.executed
    (again,) = store.results([sql], [dogs], "bird")
    assert (again, pool.executed) == (first, executed)
    assert first.executions[0].rows[0][0] == "2026-01-01 00:00:00.000"


def test_the_cache_is_bounded_and_forgets_the_oldest() -> None:
    cache: BoundedCache[str, str] = BoundedCache(6, len)
    cache.put("a", "xx")
    cache.put("b", "xx")
    cache.get("a")
    cache.put("c", "xxx")
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == ("xx", None, "xxx")
    cache.put("d", "x" * 7)
    assert cache.get("d") is None
    assert len(cache) == 2


def test_both_directions_of_a_scan_are_really_run(pool: CountingPool, dogs: str) -> None:
    queries = [
        Query(database=dogs, sql="SELECT name FROM dog", budget=BUDGET, reverse_unordered=r) for r in (False, True)
    ]
    forward, backward = pool.run(queries)
    assert forward.rows == backward.rows[::-1]


@pytest.mark.parametrize(
    ("sql", "word"),
    [("SELECT name FROM dog", ""), ("SELECT name FROM dog ORDER BY age LIMIT 1", "RANK"), (NESTED, "RANDOM")],
)
def test_a_lost_probe_settles_nothing_and_is_not_cached(dogs: str, sql: str, word: str) -> None:
    with LosingPool(1) as pool:
        store = GoldStore(pool, BUDGET)
        pool.loses = lambda query: word in query.sql if word else query.reverse_unordered
        (gold,) = store.results([sql], [dogs], "spider")
        assert (gold.usable, gold.order_dependent, gold.order_unknown, gold.order_lost) == (True, False, True, True)
        pool.loses = lambda query: False
        (gold,) = store.results([sql], [dogs], "spider")
        assert (gold.order_dependent, gold.order_unknown, gold.order_lost) == (False, False, False)


def test_one_probe_that_shows_dependence_is_enough(dogs: str) -> None:
    with LosingPool(1) as pool:
        pool.loses = lambda query: query.reverse_unordered
        (gold,) = GoldStore(pool, BUDGET).results(["SELECT name FROM dog LIMIT 2"], [dogs], "spider")
        assert (gold.order_dependent, gold.order_unknown, gold.order_lost) == (True, False, False)


def test_a_probe_that_runs_out_of_its_budget_is_unknown_and_cached(tmp_path: Path) -> None:
    dogs = write_dogs(tmp_path / "many.sqlite", [(str(i), i) for i in range(3000)])
    with CountingPool(1) as pool:
        store = GoldStore(pool, BudgetConfig(vm_steps=30_000))
        sql = "SELECT count(*) FROM dog WHERE name IN (SELECT name FROM dog LIMIT 1)"
        (gold,) = store.results([sql], [dogs], "bird")
        assert (gold.usable, gold.order_dependent, gold.order_unknown, gold.order_lost) == (True, False, True, False)
        executed = pool.executed
        store.results([sql], [dogs], "bird")
        assert pool.executed == executed


def test_golds_are_given_in_chunks_that_fit_and_larger_tasks_are_unusable(
    pool: CountingPool, dogs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task is too large alone, whatever stands beside it; what fits is what it is without a bound."""
    small, large = "SELECT name FROM dog", "SELECT a.name || b.age FROM dog a, dog b, dog c"
    sqls = [[small], [large], [f"{small} WHERE age > 1", small], [f"{small} WHERE age > 2"]]
    requests = [GoldRequest(sqls=own, databases=[dogs], policy="bird") for own in sqls]
    expected = GoldStore(pool, BUDGET).many(requests)
    monkeypatch.setattr(gold_module, "HELD_BYTES", 2_500)
    store = GoldStore(pool, BUDGET)
    chunks = list(store.chunks(requests))
    assert len(chunks) > 1
    golds = [own for chunk in chunks for own in chunk]
    assert [[g.sql for g in own] for own in golds] == sqls
    assert golds[1][0].executions[0].error_kind == "too_large"
    assert "take more than" in str(golds[1][0].reason)
    assert not golds[1][0].infrastructure
    for i in (0, 2, 3):
        assert golds[i] == expected[i]
    again = GoldStore(pool, BUDGET).many(requests[::-1])[::-1]
    assert [[g.usable for g in own] for own in again] == [[g.usable for g in own] for own in golds]


def test_probes_are_not_held(dogs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the gold's own executions are asked for as a whole."""
    with CountingPool(1) as pool:
        monkeypatch.setattr(pool, "run", None)
        (gold,) = GoldStore(pool, BUDGET).results(["SELECT name FROM dog ORDER BY age LIMIT 2"], [dogs], "spider")
        assert gold.usable


def test_the_rows_that_tie_count_for_what_is_held(
    pool: CountingPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each gold has one row, and 199 that tie with it, of 30 KB together."""
    path = write_dogs(tmp_path / "dogs.sqlite", [(f"{i:0100}", 1) for i in range(200)])
    requests = [
        GoldRequest(sqls=[f"SELECT name, {i} FROM dog ORDER BY age LIMIT 1"], databases=[path], policy="bird")
        for i in range(4)
    ]
    expected = GoldStore(pool, BUDGET).many(requests)
    assert all(gold.ties[0] is not None and len(gold.ties[0].spare) == 199 for (gold,) in expected)
    monkeypatch.setattr(gold_module, "HELD_BYTES", 110_000)
    chunks = list(GoldStore(pool, BUDGET).chunks(requests))
    assert len(chunks) == 2
    assert [own for chunk in chunks for own in chunk] == expected
    monkeypatch.setattr(gold_module, "HELD_BYTES", 20_000)
    for (gold,) in GoldStore(pool, BUDGET).many(requests):
        assert gold.executions[0].error_kind == "too_large"
