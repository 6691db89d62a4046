"""The executor against real SQLite files and what a hostile policy writes."""

import hashlib
import os
import signal
import sqlite3
import threading
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import ClassVar

import pytest

from conf.schema.reward import BudgetConfig
from rewards.carriers import Execution
from rewards.sql import query
from rewards.sql.executor import ExecutorPool
from rewards.sql.query import Query
from rewards.sql.sandbox.clock import Clock
from rewards.sql.sandbox.functions import Functions
from rewards.sql.sandbox.run import Answer, Request
from rewards.sql.snapshot import DatabaseUnreadable
from rewards.sql.worker import Worker

BUDGET = BudgetConfig(
    vm_steps=2_000_000, rows=1_000, bytes=2**20, value_bytes=2**20, heap_mib=64, cpu_s=1.0, wall_s=60.0
)
BOMB = (
    "SELECT sum(printf('%.*c', 1000000, 'a') LIKE replace(printf('%.*c', 450, 'x'), 'x', '%a') || 'b' || a.n)"
    " FROM big a, big b"
)
"""One opcode that runs for many seconds: no progress handler sees it."""


@pytest.fixture(scope="module")
def pool() -> Iterator[ExecutorPool]:
    with ExecutorPool(2) as executors:
        yield executors


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("executor") / "shop?#%.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript(
        "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT, price REAL, note TEXT);"
        "INSERT INTO item VALUES (1, 'pen', 1.5, NULL), (2, 'ink', 3, ''), (3, 'pad', 9223372036854775807, 'x');"
        "CREATE TABLE broken (word TEXT); INSERT INTO broken VALUES (CAST(x'ff61' AS TEXT));"
        "CREATE TABLE big (n INTEGER);"
    )
    connection.executemany("INSERT INTO big VALUES (?)", [(n,) for n in range(100)])
    connection.commit()
    connection.close()
    return str(path)


def run(pool: ExecutorPool, database: str, sql: str, budget: BudgetConfig = BUDGET, **options: object) -> Execution:
    return pool.run([Query(database=database, sql=sql, budget=budget, **options)])[0]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("SELECT 1", ((1,),)),
        ("  -- note\n/* more */ SELECT 1;  ", ((1,),)),
        ("SELECT 1; -- the end", ((1,),)),
        ("\ufeffSELECT 1", ((1,),)),
        ("-- a mark behind it\n\ufeff;SELECT 1; /* the end */ -- of it", ((1,),)),
        ("VALUES (1, 'a'), (2, NULL)", ((1, "a"), (2, None))),
        ("WITH t(a) AS (SELECT 2) SELECT a, a FROM t", ((2, 2),)),
        ("WITH RECURSIVE t(a) AS (SELECT 1 UNION ALL SELECT a + 1 FROM t LIMIT 3) SELECT a FROM t", ((1,), (2,), (3,))),
        ("SELECT note FROM item ORDER BY id LIMIT 2", ((None,), ("",))),
        ("SELECT 9223372036854775807, 9007199254740993, x'00ff', 1.0", ((2**63 - 1, 2**53 + 1, b"\x00\xff", 1.0),)),
        ("SELECT name FROM item WHERE name LIKE 'P%' ORDER BY id", (("pen",), ("pad",))),
        ("SELECT value FROM json_each('[1,2]')", ((1,), (2,))),
        ("SELECT printf('%05.2f|%s|%*d|%.*c', 3.14159, 'x', 4, 7, 3, 'y')", (("03.14|x|   7|yyy",),)),
        (
            "SELECT instr('hello', 'l'), instr('x', ''), instr(NULL, 'x'), instr(123, 2), instr(x'0102', x'02')",
            ((3, 1, None, 2, 2),),
        ),
        ("SELECT instr(printf('%.*c', 1000000, 'a'), printf('%.*c', 500000, 'a') || 'b')", ((0,),)),
        (
            "SELECT replace('abab', 'b', 'x'), replace('a', '', 'x'), replace(10, 0, 5), replace('a', NULL, 'b')",
            (("axax", "a", "15", None),),
        ),
        ("SELECT trim('xxaxx', 'x'), ltrim('xa', 'x'), rtrim(' a '), trim(100, 1)", (("a", "a", " a", "00"),)),
        ("SELECT word FROM broken", (("\ufffda",),)),
        ("SELECT name FROM sqlite_master WHERE name = 'item'", (("item",),)),
    ],
)
def test_queries_that_sqlite_runs(pool: ExecutorPool, database: str, sql: str, rows: tuple[object, ...]) -> None:
    execution = run(pool, database, sql)
    assert (execution.status, execution.error) == ("ok", None)
    assert execution.rows == rows


def test_cells_keep_their_storage_class_and_columns_their_names(pool: ExecutorPool, database: str) -> None:
    execution = run(pool, database, "SELECT id AS a, price AS a, name AS b FROM item WHERE id = 2")
    assert execution.columns == ("a", "a", "b")
    assert [type(value) for value in execution.rows[0]] == [int, float, str]


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("", "not_a_query"),
        ("-- nothing", "not_a_query"),
        ("I cannot answer that.", "not_a_query"),
        ("With the given schema I cannot answer.", "not_a_query"),
        ("-- with\nWith the given schema I cannot answer.", "not_a_query"),
        (f"/* {'with ' * 100} */ WITH t AS (SELECT 1) SELECT a FRM t", "syntax"),
        ("SELECT 1; -- the end\n;", "not_a_query"),
        ("\ufeff; DROP TABLE item", "forbidden"),
        ("EXPLAIN SELECT 1", "not_a_query"),
        ("EXPLAIN QUERY PLAN SELECT 1", "not_a_query"),
        ("SELECT 1; SELECT 2", "not_a_query"),
        ("SELECT 1; DROP TABLE item", "not_a_query"),
        ("DROP TABLE item", "forbidden"),
        ("DELETE FROM item", "forbidden"),
        ("WITH a AS (SELECT 1) DELETE FROM item", "forbidden"),
        ("WITH a AS (SELECT 1) INSERT INTO item(id) SELECT * FROM a", "forbidden"),
        ("PRAGMA table_info(item)", "forbidden"),
        ("SELECT * FROM pragma_table_info('item')", "forbidden"),
        ("ATTACH 'x.db' AS x", "forbidden"),
        ("VACUUM INTO 'copy.db'", "forbidden"),
        ("SELECT load_extension('x')", "forbidden"),
        ("SELECT readfile('/etc/passwd')", "forbidden"),
        ("SELECT writefile('/tmp/x', 'y')", "forbidden"),
        ("SELECT fts3_tokenizer('simple')", "forbidden"),
        ("SELECT FROM item", "syntax"),
        ("SELECT name FROM", "syntax"),
        ("SELECT 'open", "syntax"),
        ("SELECT 1\0", "syntax"),
        ("SELECT '\ud800'", "syntax"),
        ("SELECT nonesuch FROM item", "runtime"),
        ("SELECT * FROM nowhere", "runtime"),
        ("SELECT nofunction(1)", "runtime"),
        ("SELECT ?", "runtime"),
        ("SELECT abs(-9223372036854775807 - 1)", "runtime"),
        ("SELECT " + "(" * 5000 + "1" + ")" * 5000, "too_large"),
        ("SELECT '" + "x" * 1_000_000 + "'", "too_large"),
        ("SELECT randomblob(900000000)", "too_large"),
        ("SELECT zeroblob(900000000)", "too_large"),
        ("SELECT printf('%.*c', 1000000000, 'x')", "too_large"),
        ("SELECT format('%1000000000d', 1)", "too_large"),
        ("SELECT printf('%*s', '1000000000', 'x')", "too_large"),
        ("SELECT printf('%1000000000%')", "too_large"),
        ("SELECT printf('%.2f%-1000000000%', 1)", "too_large"),
        ("SELECT hex(zeroblob(1000000))", "too_large"),
        # The words that say what is wrong are SQLite's, not the query's.
        ('SELECT "too many", [too many rows] FROM item', "runtime"),
        ('SELECT [near "x": syntax error] FROM item', "runtime"),
        ("SELECT * FROM [not authorized]", "runtime"),
        ("SELECT [string or blob too big]() FROM item", "runtime"),
        ("SELECT * FROM [one statement at a time]", "runtime"),
        ("SELECT [no such function: readfile] FROM item", "runtime"),
        ("WITH RECURSIVE t(a) AS (SELECT 1 UNION ALL SELECT a + 1 FROM t) SELECT a FROM t", "too_large"),
        ("WITH RECURSIVE t(a) AS (SELECT 1 UNION ALL SELECT a + 1 FROM t) SELECT count(*) FROM t", "timeout"),
        ("SELECT count(*) FROM big a, big b, big c, big d, big e, big f, big g", "timeout"),
        ("SELECT a.n, b.n, c.n FROM big a, big b, big c", "too_large"),
        ("SELECT zeroblob(100000) FROM big", "too_large"),
        ("SELECT replace(printf('%.*c', 900000, 'a'), 'a', 'bb')", "too_large"),
        ("SELECT trim(printf('%.*c', 900000, 'a'), printf('%.*c', 900000, 'b'))", "too_large"),
        ("SELECT count(*) FROM (SELECT a.n, zeroblob(999) z FROM big a, big b, big c ORDER BY z, 1)", "too_large"),
        (BOMB, "timeout"),
    ],
)
def test_error_kinds(pool: ExecutorPool, database: str, sql: str, kind: str) -> None:
    execution = run(pool, database, sql)
    assert (execution.status, execution.error_kind) == ("error", kind), execution.error
    assert execution.error
    assert execution.rows == ()


def test_no_query_changes_the_file(pool: ExecutorPool, database: str) -> None:
    before = hashlib.sha256(Path(database).read_bytes()).hexdigest()
    for sql in ("DROP TABLE item", "WITH a AS (SELECT 1) DELETE FROM item", "REPLACE INTO item(id) VALUES (9)"):
        assert run(pool, database, sql).error_kind == "forbidden"
    assert hashlib.sha256(Path(database).read_bytes()).hexdigest() == before
    assert os.listdir(Path(database).parent) == [Path(database).name]


def test_text_that_is_not_utf8(pool: ExecutorPool, database: str) -> None:
    sql = "SELECT word FROM broken"
    assert run(pool, database, sql, text_errors="ignore").rows == (("a",),)
    assert run(pool, database, sql, text_errors="strict").error_kind == "runtime"


@pytest.mark.parametrize(
    ("call", "value"),
    [
        ("replace(word, 'a', 'b')", "b"),
        ("instr(word, 'a')", 2),
        ("trim(word, 'a')", ""),
        ("printf('%s-%s', word, 7)", "a-7"),
        ("replace(word, 'a', 'b') || length(randomblob(3))", "b3"),
    ],
)
def test_replaced_functions_take_text_that_is_not_utf8(
    pool: ExecutorPool, database: str, call: str, value: object
) -> None:
    for reverse in (False, True):
        sql = f"SELECT {call} FROM broken"
        assert run(pool, database, sql, text_errors="ignore", reverse_unordered=reverse).rows == ((value,),)
    # The first row fails in a result, the second in a call: both must be out of the way.
    both = "SELECT word FROM broken UNION ALL SELECT replace(word, 'a', 'b') FROM broken"
    assert run(pool, database, both, text_errors="ignore").rows == (("a",), ("b",))
    long = "SELECT instr(hex(zeroblob(90000)), hex(zeroblob(40000)) || 'b') FROM broken"
    assert run(pool, database, long + " WHERE length(trim(word, 'a')) < 9").error_kind == "too_large"
    assert run(pool, database, "SELECT replace(name, 'e', 'o') FROM item LIMIT 1").rows == (("pon",),)


def test_a_hanging_query_costs_the_others_nothing(pool: ExecutorPool, database: str) -> None:
    queries = [Query(database=database, sql=f"SELECT {n}", budget=BUDGET) for n in range(40)]
    queries[7] = Query(database=database, sql=BOMB, budget=BUDGET)
    restarts = pool.restarts
    executions = pool.run(queries)
    assert pool.restarts == restarts + 2  # once more, alone, with more CPU seconds
    assert executions[7].error_kind == "timeout"
    assert [e.rows for i, e in enumerate(executions) if i != 7] == [((n,),) for n in range(40) if n != 7]


def test_step_budget_is_deterministic(pool: ExecutorPool, database: str) -> None:
    sql = "SELECT count(*) FROM big a, big b, big c WHERE a.n + b.n > c.n"
    steps = {run(pool, database, sql, BUDGET.model_copy(update={"vm_steps": 50_000_000})).vm_steps for _ in range(3)}
    assert len(steps) == 1
    assert steps.pop() > 1_000_000


@pytest.mark.parametrize(
    "call",
    [
        *("printf('%d', a.n)", "replace(a.n || '', '1', '2')", "trim(a.n, '1')", "random()", "instr(a.n || '', '1')"),
        *("upper(a.n)", "lower(a.n || 'é')", "hex(a.n || '')", "quote(a.n)"),
    ],
)
def test_calls_of_replaced_functions_count_as_steps(pool: ExecutorPool, database: str, call: str) -> None:
    """A million of them would take many times the CPU of as many plain instructions."""
    budget = BUDGET.model_copy(update={"vm_steps": 2_000_000, "cpu_s": 60.0})
    plain, called = (
        run(pool, database, f"SELECT count({what}) FROM big a, big b, (SELECT n FROM big LIMIT 20)", budget)
        for what in ("a.n", call)
    )
    assert plain.status == "ok"
    assert (called.error_kind, called.error) == ("timeout", "out of the VM step budget")
    assert called.vm_steps < 2_000_000


def test_a_call_costs_what_its_value_is_long(pool: ExecutorPool, database: str) -> None:
    """Each of these hundred calls reads or makes 400,000 bytes."""
    text = "printf('%.*c', 400000, 'a')"
    for call in (f"upper({text} || a.n)", f"hex({text} || a.n)", f"quote({text} || a.n)", "zeroblob(400000 + a.n)"):
        budget = BUDGET.model_copy(update={"vm_steps": 600_000, "cpu_s": 60.0})
        execution = run(pool, database, f"SELECT sum(length({call})) FROM big a", budget)
        assert execution.error == "out of the VM step budget", call


def test_random_is_the_same_in_every_run(pool: ExecutorPool, database: str) -> None:
    sql = "SELECT random(), hex(randomblob(4)), n FROM big ORDER BY random() LIMIT 3"
    first, second = run(pool, database, sql), run(pool, database, sql)
    assert first.rows == second.rows
    assert len({row[0] for row in first.rows}) == 3


def test_reversed_scans_show_missing_order(pool: ExecutorPool, database: str) -> None:
    sql = "SELECT n FROM big LIMIT 1"
    assert run(pool, database, sql).rows == ((0,),)
    assert run(pool, database, sql, reverse_unordered=True).rows == ((99,),)


TIMES = (
    "SELECT datetime('now'), date(), time(), CURRENT_DATE, CURRENT_TIME, CURRENT_TIMESTAMP, julianday('NOW'), "
    "strftime('%f'), strftime('%Y-%m', 'now', '-1 month'), datetime('now', 'localtime'), date(word), "
    "(SELECT day FROM today) FROM clock"
)
MOMENT = (
    *("2026-01-01 00:00:00", "2026-01-01", "00:00:00", "2026-01-01", "00:00:00", "2026-01-01 00:00:00", 2461041.5),
    *("00.000", "2025-12", "2026-01-01 00:00:00", "2026-01-01", "2026-01-01"),
)


@pytest.fixture(scope="module")
def clocks(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("clock") / "clock.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE TABLE clock (word TEXT); INSERT INTO clock VALUES ('now');"
            "CREATE VIEW today AS SELECT date('now') AS day;"
        )
    return str(path)


def test_the_clock_stands_still_wherever_it_is_read(pool: ExecutorPool, clocks: str) -> None:
    assert run(pool, clocks, TIMES).rows == (MOMENT,)
    later = BUDGET.model_copy(update={"clock": "2031-02-03 04:05:06"})
    assert run(pool, clocks, "SELECT datetime('now')", later).rows == (("2031-02-03 04:05:06",),)
    assert run(pool, clocks, TIMES).rows == (MOMENT,)


def test_the_present_is_one_time_for_all_that_a_process_executes(pool: ExecutorPool, clocks: str) -> None:
    present = BUDGET.model_copy(update={"clock": "present"})
    sql = "SELECT strftime('%s %f', 'now'), unixepoch()"
    first = run(pool, clocks, sql, present)
    time.sleep(0.01)
    assert run(pool, clocks, sql, present).rows == first.rows
    assert abs(int(str(first.rows[0][1])) - time.time()) < 600


def test_functions_answer_the_same_where_sqlites_layer_cannot_be_reached(clocks: str) -> None:
    clock = Clock(layer=False)
    functions = Functions()
    with closing(sqlite3.connect(clocks)) as connection:
        functions.install(connection, native=False)
        clock.install(connection, functions.native)
        clock.frozen_ms = BUDGET.clock_ms
        assert connection.execute(TIMES).fetchall() == [MOMENT]


def test_replaced_functions_answer_as_sqlites_own(pool: ExecutorPool, database: str) -> None:
    values = ("'abC'", "'aßÄz'", "''", "NULL", "12", "-1.5", "x'0041'", "x'c3a9'", "'a' || char(0) || 'b'", "'it''s'")
    calls = [f"{name}({value})" for name in ("upper", "lower", "hex", "quote", "zeroblob") for value in values]
    calls += ["printf('%5%|%-4d|%05.1f|%%', 3, 2.25)", "printf('%*d%s', 4, 7, 'x')", "zeroblob(3)", "zeroblob(-1)"]
    with closing(sqlite3.connect(":memory:")) as plain:
        expected = plain.execute("SELECT " + ", ".join(calls)).fetchall()
    assert list(run(pool, database, "SELECT " + ", ".join(calls)).rows) == expected


LOOP = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"


@pytest.mark.parametrize(
    "name", [f't" WHERE ({LOOP}) --', 'a"b', "x'y", "fts3_tokenizer('simple', x'4141414141414141')", '"', "t]; --"]
)
def test_a_name_in_the_database_runs_nothing(pool: ExecutorPool, tmp_path: Path, name: str) -> None:
    path = tmp_path / "hostile.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        quoted = name.replace('"', '""')
        connection.execute(f'CREATE VIRTUAL TABLE "{quoted}" USING fts4(a)')
        connection.execute("CREATE TABLE dog AS SELECT 4 AS age")
    restarts = pool.restarts
    assert run(pool, str(path), "SELECT age FROM dog").rows == ((4,),)
    assert run(pool, str(path), f'SELECT count(*) FROM "{quoted}"').rows == ((0,),)
    assert pool.restarts == restarts


def test_full_text_and_rtree_tables_are_searched(pool: ExecutorPool, tmp_path: Path) -> None:
    path = tmp_path / "search.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE VIRTUAL TABLE five USING fts5(note); INSERT INTO five VALUES ('red fox'), ('blue fox'), ('cat');"
            "CREATE VIRTUAL TABLE four USING fts4(note); INSERT INTO four VALUES ('red fox'), ('cat');"
            "CREATE VIRTUAL TABLE box USING rtree(id, low, high); INSERT INTO box VALUES (1, 0, 1), (2, 2, 3);"
        )
    for _ in range(2):  # a connection that is new, and one that is known
        assert run(pool, str(path), "SELECT note FROM five WHERE five MATCH 'fox' ORDER BY rank, rowid").rows == (
            ("red fox",),
            ("blue fox",),
        )
        assert run(pool, str(path), "SELECT snippet(four) FROM four WHERE note MATCH 'fox'").rows == (
            ("red <b>fox</b>",),
        )
        assert run(pool, str(path), "SELECT id FROM box WHERE low > 1").rows == ((2,),)
    assert run(pool, str(path), "INSERT INTO five VALUES ('dog')").error_kind == "forbidden"
    assert run(pool, str(path), "SELECT * FROM pragma_data_version").error_kind == "forbidden"


def test_like_patterns_are_as_long_as_sqlite_allows(pool: ExecutorPool, database: str) -> None:
    pattern = "p" + "e" * 3000 + "%"
    assert run(pool, database, f"SELECT count(*) FROM item WHERE name LIKE '{pattern}'").rows == ((0,),)


def test_a_column_whose_name_is_not_utf8(pool: ExecutorPool, tmp_path: Path) -> None:
    path = tmp_path / "latin.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE t (a INTEGER, b INTEGER)")
        connection.execute("INSERT INTO t VALUES (3, 1)")
        connection.execute("PRAGMA writable_schema=ON")
        named = b'CREATE TABLE t (a INTEGER, "\xe4" INTEGER)'.hex()
        connection.execute(f"UPDATE sqlite_master SET sql = CAST(x'{named}' AS TEXT)")
    assert run(pool, str(path), "SELECT a FROM t").rows == ((3,),)
    execution = run(pool, str(path), "SELECT * FROM t")
    assert (execution.status, execution.error_kind) == ("error", "runtime")
    assert execution.error == "the query reads a column whose name is not UTF-8"


def test_a_result_is_counted_as_it_lies_in_memory(pool: ExecutorPool, database: str) -> None:
    """One character outside the basic plane makes every character of a text take four bytes."""
    budget = BUDGET.model_copy(update={"bytes": 2**20})
    text = "printf('%.*c', 200000, 'a')"
    assert run(pool, database, f"SELECT {text}, {text}", budget).status == "ok"
    assert (
        run(pool, database, f"SELECT {text} || char(128512), {text} || char(128512)", budget).error_kind == "too_large"
    )


def test_each_holds_no_more_than_what_it_makes_of_a_result(database: str) -> None:
    """Sixty-four results of a megabyte each, of which one at a time is held."""
    budget = BUDGET.model_copy(update={"bytes": 2**21})
    queries = [
        Query(database=database, sql=f"SELECT printf('%.*c', 1000000, 'a') || {n}", budget=budget) for n in range(64)
    ]
    with ExecutorPool(2) as pool:
        pool.each(queries[:2], lambda index, execution: None)  # what starting costs
        tracemalloc.start()
        sizes = pool.each(queries, lambda index, execution: len(str(execution.rows[0][0])))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert sizes == [1_000_001 + (n > 9) for n in range(64)]
    assert peak < 16 * 2**20


def test_what_is_done_with_one_result_is_not_the_silence_of_another_process(database: str) -> None:
    """The second process answers while the first result is worked on, for longer than a process may be silent."""
    budget = BUDGET.model_copy(update={"wall_s": 1.0, "vm_steps": 10**9})
    slow = "SELECT count(*) FROM big a, big b, big c WHERE a.n + b.n > c.n"
    with ExecutorPool(2) as pool:
        pool.run([Query(database=database, sql=f"SELECT {n}", budget=budget) for n in range(4)])

        def slowly(index: int, execution: Execution) -> str:
            time.sleep(1.5)
            return execution.status

        queries = [Query(database=database, sql=sql, budget=budget) for sql in ("SELECT 1", slow)]
        assert pool.each(queries, slowly) == ["ok", "ok"]
        assert pool.restarts == 0


def test_infrastructure_is_unscorable_never_an_error(pool: ExecutorPool, database: str, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.sqlite"
    damaged.write_bytes(b"no database at all" * 100)
    for path in (str(tmp_path / "absent.sqlite"), str(damaged)):
        execution = run(pool, path, "SELECT 1")
        assert (execution.status, execution.error_kind) == ("unscorable", None)
        assert path in str(execution.error)
    assert not (tmp_path / "absent.sqlite").exists()


def test_a_file_that_changed_is_read_anew(pool: ExecutorPool, tmp_path: Path) -> None:
    path = tmp_path / "changing.sqlite"
    for value in (1, 2):
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS t (a)")
            connection.execute("DELETE FROM t")
            connection.execute("INSERT INTO t VALUES (?)", (value,))
        connection.close()
        assert run(pool, str(path), "SELECT a FROM t").rows == ((value,),)


def test_a_stopped_process_is_replaced_and_its_query_retried(database: str) -> None:
    budget = BUDGET.model_copy(update={"wall_s": 0.3})
    with ExecutorPool(1) as pool:
        run(pool, database, "SELECT 1", budget)
        (pid,) = pool.pids()
        os.kill(pid, signal.SIGSTOP)
        executions = pool.run([Query(database=database, sql=f"SELECT {n}", budget=budget) for n in range(20)])
        assert [e.rows for e in executions] == [((n,),) for n in range(20)]
        assert pool.restarts == 1
        assert pool.pids() != (pid,)


def test_a_process_killed_from_outside_is_replaced(database: str) -> None:
    with ExecutorPool(1) as pool:
        run(pool, database, "SELECT 1")
        os.kill(pool.pids()[0], signal.SIGKILL)
        assert run(pool, database, "SELECT 2").rows == ((2,),)


class DyingWorker(Worker):
    """A process that dies of each query that holds one of `deadly`, once it is up."""

    deadly: ClassVar[tuple[str, ...]] = ()

    def send(self, requests: Sequence[Request]) -> None:
        self._dies = any(word in request[1] for request in requests for word in self.deadly)
        super().send(requests)

    def receive(self) -> list[Answer] | None:
        answers = super().receive()
        if self.ready and self._dies:
            os.kill(self.pid, signal.SIGKILL)
            return None
        return answers


@pytest.mark.parametrize(("deadly", "own_doing"), [(("poison",), True), (("poison", "sqlite_master"), False)])
def test_a_harmless_query_tells_whose_doing_a_lost_process_is(
    database: str, monkeypatch: pytest.MonkeyPatch, deadly: tuple[str, ...], own_doing: bool
) -> None:
    monkeypatch.setattr(DyingWorker, "deadly", deadly)
    monkeypatch.setattr("rewards.sql.dispatch.Worker", DyingWorker)
    with ExecutorPool(1) as pool:
        before, lost, after = pool.run(
            [Query(database=database, sql=sql, budget=BUDGET) for sql in ("SELECT 1", "SELECT 'poison'", "SELECT 2")]
        )
        assert (before.rows, after.rows) == (((1,),), ((2,),))
        assert (lost.status, lost.own_doing, lost.lost) == ("unscorable", own_doing, not own_doing)
        assert lost.error == "the SQL executor was lost twice (the last time ended with code -9)"
        assert pool.restarts == (2 if own_doing else 3)


def test_threads_share_the_pool(pool: ExecutorPool, database: str) -> None:
    failures: list[int] = []

    def work(offset: int) -> None:
        queries = [Query(database=database, sql=f"SELECT {offset + n}", budget=BUDGET) for n in range(50)]
        if [e.rows for e in pool.run(queries)] != [((offset + n,),) for n in range(50)]:
            failures.append(offset)

    threads = [threading.Thread(target=work, args=(1000 * n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert failures == []


def test_close_leaves_no_process(database: str) -> None:
    pool = ExecutorPool(2)
    pool.run([Query(database=database, sql=f"SELECT {n}", budget=BUDGET) for n in range(8)])
    pids = pool.pids()
    pool.close()
    assert pids
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    with pytest.raises(RuntimeError, match="closed"):
        run(pool, database, "SELECT 1")


def test_a_killed_parent_leaves_no_executor(database: str, tmp_path: Path) -> None:
    endless = "WITH RECURSIVE t(a) AS (SELECT 1 UNION ALL SELECT a + 1 FROM t) SELECT count(*) FROM t"
    budget = BUDGET.model_copy(update={"vm_steps": 10**12, "cpu_s": 60.0, "wall_s": 60.0})
    reader, writer = os.pipe()
    parent = os.fork()
    if parent == 0:
        pool = ExecutorPool(1)
        run(pool, database, "SELECT 1")
        os.write(writer, str(pool.pids()[0]).encode())
        run(pool, database, endless, budget)
        os._exit(0)
    executor = int(os.read(reader, 32))
    time.sleep(0.2)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    deadline = time.monotonic() + 5
    while Path(f"/proc/{executor}").exists() and time.monotonic() < deadline:
        if ") Z" in Path(f"/proc/{executor}/stat").read_text():
            break
        time.sleep(0.02)
    else:
        assert not Path(f"/proc/{executor}").exists()


def test_what_is_damaged_in_one_virtual_table_is_not_seen_by_other_queries(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(
            "CREATE TABLE dog (name TEXT); INSERT INTO dog VALUES ('rex');"
            "CREATE VIRTUAL TABLE r USING rtree(id, a, b); INSERT INTO r VALUES (1, 2, 3);"
            "UPDATE r_node SET data = x'00';"
        )
    with ExecutorPool(1) as pool:
        dogs, boxes = pool.run(
            [Query(database=str(path), sql=sql, budget=BUDGET) for sql in ("SELECT name FROM dog", "SELECT * FROM r")]
        )
    assert dogs.rows == (("rex",),)
    assert boxes.status != "ok"


def test_random_blobs_take_their_size_from_text_as_sqlite_does(pool: ExecutorPool, database: str) -> None:
    sql = (
        "SELECT length(randomblob('5x')), length(randomblob(x'35')), length(randomblob(2.9)), length(randomblob(NULL))"
    )
    assert run(pool, database, sql).rows == ((5, 5, 2, 1),)


def test_a_database_that_goes_before_the_second_try_is_no_exception(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE big (n INTEGER)")
        connection.executemany("INSERT INTO big VALUES (?)", [(n,) for n in range(100)])
    found = iter([query.readable(path)])

    def readable(path: str) -> str:
        for file in found:
            return file
        raise DatabaseUnreadable("gone")

    monkeypatch.setattr(query, "readable", readable)
    with ExecutorPool(1) as pool:
        (execution,) = pool.run([Query(database=str(path), sql=BOMB, budget=BUDGET.model_copy(update={"cpu_s": 0.2}))])
    assert (execution.status, execution.error_kind) == ("error", "timeout")


def test_without_the_layer_the_newer_functions_stand_still_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """What reaches SQLite's own function, where it has them."""
    monkeypatch.setattr("rewards.sql.sandbox.clock.SUBSECONDS", True)
    monkeypatch.setattr("rewards.sql.sandbox.clock.TIMEDIFF", True)
    clock = Clock(layer=False)
    clock.frozen_ms = BUDGET.clock_ms
    calls = []

    def native(*arguments: object) -> int:
        calls.append(arguments)
        return 0

    with closing(sqlite3.connect(":memory:")) as connection:
        clock.install(connection, native)
        connection.execute("SELECT timediff('now', '2025-01-01'), unixepoch('subsec'), date(x'6e6f77')").fetchall()
    assert calls == [
        ("timediff", 2461041.5, "2025-01-01"), ("unixepoch", 2461041.5, "subsec"), ("date", 2461041.5)
    ]  # fmt: skip
