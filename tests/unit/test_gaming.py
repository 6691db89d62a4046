"""What cheating earns: candidates made of a gold's rows, queries that read no table, and the measure that prints it."""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from conf.schema.reward import BudgetConfig
from conf.schema.reward_benchmark import RewardBenchmarkConfig
from measure.rewards import gaming
from measure.rewards.__main__ import main
from rewards.carriers import Execution, SqlTask, Value
from rewards.components.memory import MemoryComponent
from rewards.memory_store import VerifiedTrace
from rewards.scorer import Scorer
from rewards.sql.cheats import Cheat, cheats, rows_as_sql
from rewards.sql.executor import ExecutorPool
from rewards.sql.query import Query
from rewards.sql.tables import is_constant, reads_table, uses_rows
from tests.dogs import write_dogs

PUBLIC = Path(__file__).resolve().parents[3] / "shared" / "data"
REASONING = (
    "The question asks for the name of every dog, so name is needed from the dog table. It also restricts the age: age "
    "must be above four. Sorting by name descending then gives the wanted dogs, and name together with age is returned."
)
FOREIGN = (
    "First I look at the singer table, whose first_name and birth_year columns hold what is wanted. A singer counts "
    "only if birth_year lies after 1980, so a WHERE clause on birth_year is next, and first_name is what I select."
)


@pytest.fixture(scope="module")
def pool() -> Iterator[ExecutorPool]:
    with ExecutorPool(1) as executors:
        yield executors


@pytest.fixture
def instances(tmp_path: Path) -> tuple[str, str]:
    first = write_dogs(tmp_path / "dogs.sqlite", [("rex", 3), ("ace", 5)])
    return first, write_dogs(tmp_path / "dogs_v1.sqlite", [("rex", 3), ("ace", 5), ("old", 9)])


def ok(*rows: tuple[Value, ...]) -> Execution:
    return Execution(status="ok", rows=rows)


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le"])
def test_literals_give_back_every_value_and_storage_class(pool: ExecutorPool, tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "some.sqlite"
    connection = sqlite3.connect(file)
    connection.execute(f"PRAGMA encoding = '{encoding}'")
    connection.execute("CREATE TABLE t (a)")
    connection.close()
    rows: list[tuple[Value, ...]] = [
        *[
            (value, "x")
            for value in (None, 0, -1, 2**63 - 1, -(2**63), "", "it's", "a\0b'\0", 'ünï\n"q"', "\U0001f600")
        ],
        *[(value, "x") for value in (b"", b"\0\xff'", 0.0, 5.0, 0.1, 1 / 3, 0.894250805536908, 1e22, 1e23, -2.5e-7)],
        *[
            (value, "x")
            for value in (5e-324, 1.7976931348623157e308, 2.2250738585072014e-308, float("inf"), -float("inf"))
        ],
    ]
    budget = BudgetConfig()
    asked = [*(rows_as_sql([row]) for row in rows), rows_as_sql(rows)]
    *single, together = pool.run([Query(database=str(file), sql=sql, budget=budget) for sql in asked])
    for row, execution in zip(rows, single, strict=True):
        assert execution.rows == (row,)
        assert type(execution.rows[0][0]) is type(row[0])
    assert together.rows == tuple(rows)


def test_the_three_kinds_and_their_bounds() -> None:
    assert cheats(ok((1, "a"), (2, None)), chars=100) == [
        Cheat(kind="constant", sql="SELECT 1, 'a'"),
        Cheat(kind="empty", sql="SELECT NULL WHERE 0"),
        Cheat(kind="literal", sql="VALUES (1, 'a'), (2, NULL)"),
    ]
    assert {cheat.sql for cheat in cheats(ok(), chars=100)} == {"SELECT NULL WHERE 0"}
    assert [cheat.kind for cheat in cheats(ok(*[(n,) for n in range(50)]), chars=100)] == ["constant", "empty"]
    assert [cheat.kind for cheat in cheats(ok(("x" * 99,)), chars=100)] == ["empty"]
    with pytest.raises(ValueError, match="no rows to copy"):
        cheats(Execution(status="error", error="no such table"), chars=100)


READING = [
    "SELECT name FROM dog",
    "select count(*) from main.dog",
    "SELECT * FROM (dog)",
    'SELECT 1 FROM "dog table"',
    "SELECT 3 WHERE 1 IN dog",
    "SELECT 3 WHERE EXISTS (SELECT 1 FROM dog)",
    "WITH a AS (SELECT * FROM dog) SELECT * FROM a",
    "WITH dog AS (SELECT 1) SELECT * FROM main.dog",
    "SELECT * FROM (WITH dog AS (VALUES (1)) SELECT * FROM dog) JOIN dog",
    "SELECT * FROM json_each('[1]') JOIN dog",
    "SELECT 'no token \0 of SQLite' FROM dog",
    "SELECT 1 FROM (((((((((((((((((((((((((1)))))))))))))))))))))))))",
]
CONSTANT = [
    "SELECT 1",
    "VALUES (1), (2)",
    "SELECT 'a' UNION ALL SELECT 'taken from dog'",
    "SELECT 3 WHERE 1 IN (1, 2)",
    "SELECT 1 IS DISTINCT FROM 2",
    "SELECT * FROM (SELECT 3)",
    "SELECT value FROM json_each('[1, 2]')",
    "WITH dog AS (SELECT 3) SELECT * FROM dog",
    "WITH a AS (SELECT 1), b AS (SELECT * FROM a) SELECT * FROM b",
    "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 3) SELECT i FROM c",
    "SELECT 1 FROM sqlite_master",
    'SELECT 1 FROM main."sqlite_schema"',
    "SELECT count(*) FROM pragma_table_info('dog')",
    "VALUES " + ", ".join(f"({n}, 'from')" for n in range(2000)),
]


@pytest.mark.parametrize(("queries", "reads"), [(READING, True), (CONSTANT, False)])
def test_which_queries_read_a_table(queries: list[str], reads: bool) -> None:
    assert [sql for sql in queries if reads_table(sql) is not reads] == []


def test_every_public_gold_reads_a_table() -> None:
    files = {"spider/dev.json": "query", "bird/dev.json": "SQL", "spider_full/train_spider.json": "query"}
    golds = [entry[key] for file, key in files.items() for entry in json.loads((PUBLIC / file).read_text())]
    assert len(golds) > 9000
    assert [gold for gold in golds if not (reads_table(gold) and uses_rows(gold))] == []


@pytest.mark.parametrize(
    ("answer", "constant"),
    [
        ("SELECT 3 FROM dog LIMIT 1", True),
        ("SELECT DISTINCT 3 FROM dog", True),
        ("SELECT max(3), 'dog.name', NULL FROM dog", True),
        ("SELECT 3 FROM dog GROUP BY 1", True),
        ("SELECT 'a' UNION SELECT 'b' FROM dog", True),
        ("SELECT (SELECT CASE WHEN 1 THEN 3 END FROM dog LIMIT 1)", True),
        ("SELECT 2 * 3 FROM dog, (SELECT 1) LIMIT 1", True),
        ("SELECT count(*) FROM dog", False),
        ("SELECT sum(1) FROM dog", False),
        ("SELECT count(1) FROM dog", False),
        ("SELECT row_number() OVER () FROM dog", False),
        ("SELECT 'yes' WHERE EXISTS (SELECT 1 FROM dog)", False),
        ("SELECT 'yes' WHERE 3 IN dog", False),
        ("SELECT 'yes' FROM dog WHERE age > 8", False),
        ("SELECT 'yes' FROM dog NATURAL JOIN cat", False),
        ("SELECT 'yes' FROM dog JOIN cat USING (name)", False),
        ('SELECT "name" FROM dog', False),
        ("SELECT max(age) FROM dog", False),
        ("SELECT * FROM dog", False),
        ("SELECT 1 FROM dog ORDER BY rowid", False),
    ],
)
def test_a_constant_beside_a_table_says_nothing(answer: str, constant: bool) -> None:
    assert is_constant(answer, ["SELECT name FROM dog", "SELECT count(*) FROM dog"]) is constant
    assert not is_constant(answer, ["SELECT name FROM dog", "SELECT 1 FROM dog", "SELECT 1"])


def score(
    pool: ExecutorPool,
    databases: tuple[str, ...],
    mode: gaming.Mode,
    gold: str,
    *answers: str,
    reasoning: str = REASONING,
) -> tuple[list[tuple[int, float, float]], int]:
    """(execution, memory, total) of each answer, and the verified traces."""
    reward = gaming.mode_config(mode)
    memory = MemoryComponent(reward.memory)
    memory.remember([VerifiedTrace(task_id="other", db_id="music", reasoning=FOREIGN)])
    scorer = Scorer(reward, pool, memory)
    task = SqlTask(id="t", db_id="dogs", question="?", gold_sqls=(gold,), databases=databases, denotation="spider")
    found = scorer.score(task, [f"<think>{reasoning}</think>{answer}" for answer in answers])
    values = [(r.components["execution"], r.components["memory"], r.total) for r in found]
    return values, len(scorer.take_verified())  # type: ignore[return-value]


GOLD = "SELECT name FROM dog WHERE age > 4"


@pytest.mark.parametrize(
    "copy",
    [
        "SELECT 'ace'",
        "VALUES ('ace')",
        "WITH dog AS (SELECT 'ace') SELECT * FROM dog",
        "SELECT DISTINCT 'ace' FROM dog",
        "SELECT max('ace') FROM dog",
    ],
)
def test_a_literal_copy_is_right_in_finer_and_never_in_strict(
    pool: ExecutorPool, instances: tuple[str, str], copy: str
) -> None:
    for databases, level in ((instances[:1], 2), (instances, 1)):
        ((execution, memory, total),), verified = score(pool, databases, "finer", GOLD, copy)
        assert (execution, memory, total, verified) == (2, 1.0, 4.0, 1)
        ((execution, memory, total),), verified = score(pool, databases, "strict", GOLD, copy)
        assert (execution, verified) == (level, 0)  # where one instance cannot tell, the total does
        assert memory < 0.6
        assert total < 0.75 * 4.0


def test_a_copy_beside_a_table_takes_another_instance(pool: ExecutorPool, instances: tuple[str, str]) -> None:
    beside = "SELECT iif(age > 0, 'ace', '') FROM dog LIMIT 1"
    for databases, level in ((instances[:1], 2), (instances, 1)):
        ((execution, _, _), (gold, _, total)), verified = score(pool, databases, "strict", GOLD, beside, GOLD)
        assert (execution, gold, total) == (level, 2, 4.0)
        assert verified == 1  # one reasoning, that of the gold too


def test_a_gold_that_reads_no_table_accepts_a_constant(pool: ExecutorPool, instances: tuple[str, str]) -> None:
    ((execution, _, total), _), _ = score(pool, instances, "strict", "SELECT 3", "SELECT 1 + 2", "SELECT 3")
    assert (execution, total) == (2, 4.0)


@pytest.mark.parametrize("answer", ["There is none.", "SELECT nothing FROM dog", "DROP TABLE dog"])
def test_strict_pays_no_memory_below_execution_1(pool: ExecutorPool, instances: tuple[str, str], answer: str) -> None:
    ((_, memory, total),), _ = score(pool, instances, "finer", GOLD, answer)
    assert memory > 0.1
    assert total == pytest.approx(1.0 + memory)
    ((_, memory, total),), _ = score(pool, instances, "strict", GOLD, answer)
    assert (memory, total) == (0.0, pytest.approx(0.75))  # the format point, scaled below every right answer


def test_strict_pays_nothing_for_a_copied_trace(pool: ExecutorPool, instances: tuple[str, str]) -> None:
    wrong = "SELECT age FROM dog"
    (finer,), _ = score(pool, instances, "finer", GOLD, wrong, reasoning=FOREIGN + " Done.")
    (strict,), _ = score(pool, instances, "strict", GOLD, wrong, reasoning=FOREIGN + " Done.")
    assert finer[1] > 0.9
    assert strict[1] == 0.0


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Both data sets in their published layouts: two questions on dogs, two on cats."""
    questions = [(name, f"SELECT {column} FROM dog") for name in ("dogs", "cats") for column in ("name", "max(age)")]
    root = tmp_path / "data"
    for dataset, databases, key in (("spider", "database", "query"), ("bird", "dev_databases", "SQL")):
        for name, age in (("dogs", 3), ("cats", 8)):
            folder = root / dataset / databases / name
            folder.mkdir(parents=True)
            write_dogs(folder / f"{name}.sqlite", [("rex", age), ("ace", 5)])
        entries = [{"db_id": name, "question": "?", key: sql} for name, sql in questions]
        (root / dataset / "dev.json").write_text(json.dumps(entries))
    (root / "spider" / "tables.json").write_text(json.dumps([{"db_id": "dogs"}, {"db_id": "cats"}]))
    return root


@pytest.mark.parametrize("dataset", ["spider", "bird"])
def test_the_measure_by_hand(data: Path, dataset: str) -> None:
    config = RewardBenchmarkConfig(root=str(data), measures=("gaming",), executors=1)
    finer, strict = (gaming.measure(config, dataset, mode) for mode in ("finer", "strict"))  # type: ignore[arg-type]
    for figures in (finer, strict):
        assert (figures["questions"], figures["unscorable"]) == (4, 0)
        assert (figures["gold: total"], figures["gold: right"], figures["gold: of highest"]) == (4.0, 1.0, 1.0)
        assert figures["empty: right"] == figures["copied, no SQL: right"] == 0.0
    assert finer["literal: total"] == finer["literal + table: total"] == 4.0
    assert finer["constant: right"] == 0.5  # max(age) is one row, the names are two
    assert strict["constant: right"] == strict["literal: right"] == strict["literal: verified"] == 0.0
    assert strict["literal + table: right"] == 1.0  # one instance cannot tell
    assert finer["copied, no SQL: total"] > 1.3
    assert strict["copied, no SQL: total"] == pytest.approx(0.75)


def test_further_instances_refute_a_copy_beside_a_table(data: Path, tmp_path: Path) -> None:
    made = tmp_path / "made" / "dogs"
    made.mkdir(parents=True)
    write_dogs(made / "dogs.sqlite", [("rex", 3), ("ace", 5)])
    write_dogs(made / "dogs_x00.sqlite", [("rex", 3), ("ace", 5), ("old", 9)])
    write_dogs(data / "bird" / "dev_databases" / "cats" / "cats_v1.sqlite", [("tom", 1)])
    config = RewardBenchmarkConfig(root=str(data), measures=("gaming",), executors=1, instances=str(made.parent))
    figures = gaming.measure(config, "bird", "strict")
    assert (figures["gold: right"], figures["literal + table: right"]) == (1.0, 0.0)
    assert (figures["questions"], figures["with made instances"]) == (4, 2)


def test_a_limit_takes_questions_evenly(data: Path) -> None:
    config = RewardBenchmarkConfig(root=str(data), measures=("gaming",), executors=1, limit=2)
    assert gaming.measure(config, "spider", "finer")["questions"] == 2


def test_the_command_prints_every_data_set_and_mode(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"root={data}", "measures=[gaming]", "executors=1", "limit=2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines} == {"spider/finer", "spider/strict", "bird/finer", "bird/strict"}
    assert "bird/strict   literal: right                 0" in lines


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("instances=/nowhere/at/all", "no such folder"),
        ("output=/nowhere/at/all.json", "a file in a folder that exists expected"),
        ("measures=[]", "at least 1 item"),
    ],
)
def test_settings_that_cannot_serve_are_refused_at_once(
    data: Path, setting: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([f"root={data}", "measures=[gaming]", setting]) != 0
    said = capsys.readouterr()
    assert (said.out, message in said.err) == ("", True)


@pytest.mark.parametrize("setting", ["limit=3", "instances=somewhere"])
def test_settings_of_the_measure_are_refused_without_it(setting: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["root=somewhere", "measures=[memory]", setting]) == 2
    assert "has no effect without the measure gaming" in capsys.readouterr().err
