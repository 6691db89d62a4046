"""The executor against real SQLite files and what a hostile policy writes."""

import hashlib
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conf.schema.reward import BudgetConfig
from rewards.carriers import Execution
from rewards.sql.executor import ExecutorPool, Query

BUDGET = BudgetConfig(
    vm_steps=2_000_000, rows=1_000, bytes=2**20, value_bytes=2**20, heap_mib=64, cpu_s=1.0, wall_s=10.0
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
    assert pool.restarts == restarts + 1
    assert executions[7].error_kind == "timeout"
    assert [e.rows for i, e in enumerate(executions) if i != 7] == [((n,),) for n in range(40) if n != 7]


def test_step_budget_is_deterministic(pool: ExecutorPool, database: str) -> None:
    sql = "SELECT count(*) FROM big a, big b, big c WHERE a.n + b.n > c.n"
    steps = {run(pool, database, sql, BUDGET.model_copy(update={"vm_steps": 50_000_000})).vm_steps for _ in range(3)}
    assert len(steps) == 1
    assert steps.pop() > 1_000_000


@pytest.mark.parametrize(
    "call", ["printf('%d', a.n)", "replace(a.n || '', '1', '2')", "trim(a.n, '1')", "random()", "instr(a.n || '', '1')"]
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


def test_random_is_the_same_in_every_run(pool: ExecutorPool, database: str) -> None:
    sql = "SELECT random(), hex(randomblob(4)), n FROM big ORDER BY random() LIMIT 3"
    first, second = run(pool, database, sql), run(pool, database, sql)
    assert first.rows == second.rows
    assert len({row[0] for row in first.rows}) == 3


def test_reversed_scans_show_missing_order(pool: ExecutorPool, database: str) -> None:
    sql = "SELECT n FROM big LIMIT 1"
    assert run(pool, database, sql).rows == ((0,),)
    assert run(pool, database, sql, reverse_unordered=True).rows == ((99,),)


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
