"""Corners of the official semantics, each with the verdicts that the official functions gave on this database.

Sources of the verdicts: `eval_exec_match` with and without keep_distinct (taoyds/test-suite-sql-eval), `calculate_ex`
and `calculate_f1_score` (bird-bench/mini_dev). Spider's script cannot read an empty line: there an empty prediction is
wrong.
"""

import sqlite3
from pathlib import Path

import pytest

from benchmarks.carriers import Answer, Question, QuestionSet
from benchmarks.scoring.bird import BirdJudge
from benchmarks.scoring.runner import Known, Runner
from benchmarks.scoring.spider import SpiderJudge
from benchmarks.scoring.voting import Voting
from conf.schema.benchmark import BenchmarkExecution

CONTENT = """
CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, x REAL, n INTEGER, b BLOB, value TEXT);
INSERT INTO t VALUES (1, 'Ann', 1.0, 1, x'00ff', '1'), (2, 'Bob', 2.5, NULL, x'41', ''),
    (3, 'Ann', 3.0, 3, NULL, 'two'), (4, 'O''Neil', 1.0, 1, x'00ff', '1');
CREATE TABLE bad (s TEXT);
INSERT INTO bad VALUES (CAST(x'61ff62' AS TEXT));
"""
# gold, prediction, exec, exec_keep_distinct, ex, soft_f1
CASES: list[tuple[str, str, int, int, int, float]] = [
    ("SELECT name FROM t", "SELECT name FROM t ORDER BY id DESC", 1, 1, 1, 0),
    ("SELECT name FROM t ORDER BY id", "SELECT name FROM t ORDER BY id DESC", 0, 0, 1, 0),
    ("SELECT name FROM t", "SELECT DISTINCT name FROM t", 1, 0, 1, 1),
    ("SELECT count(DISTINCT name) FROM t", "SELECT count(name) FROM t", 1, 0, 0, 0),
    ("SELECT count(DISTINCT name) FROM t", "SELECT count(*) FROM (SELECT DISTINCT name FROM t)", 1, 1, 1, 1),
    ("SELECT id, name FROM t", "SELECT name, id FROM t", 1, 1, 0, 1),
    ("SELECT id FROM t WHERE 0", "SELECT id, name FROM t WHERE 0", 1, 1, 1, 1),
    ("SELECT id FROM t WHERE 0", "SELECT NULL", 0, 0, 0, 0),
    ("SELECT x FROM t WHERE id = 1", "SELECT 1", 1, 1, 1, 1),
    ("SELECT x FROM t WHERE id = 1", "SELECT '1'", 0, 0, 0, 0),
    ("SELECT x FROM t WHERE id = 1", "SELECT 1.0000001", 0, 0, 0, 0),
    ("SELECT x, 2.5 FROM t WHERE id = 1", "SELECT 1, 2.5", 1, 1, 1, 1),
    ("SELECT x, 10 FROM t WHERE id = 1", "SELECT 1, 10", 0, 0, 1, 1),
    ("SELECT n FROM t WHERE id = 2", "SELECT ''", 0, 0, 0, 0),
    ("SELECT n FROM t WHERE id = 2", "SELECT NULL", 1, 1, 1, 1),
    ("SELECT n FROM t WHERE id = 2", "SELECT 0", 0, 0, 0, 0),
    ("SELECT name FROM t WHERE id = 1", "SELECT 'ann'", 0, 0, 0, 0),
    ("SELECT b FROM t WHERE id = 2", "SELECT 'A'", 0, 0, 0, 0),
    ("SELECT b FROM t WHERE id = 2", "SELECT x'41'", 1, 1, 1, 1),
    ("SELECT s FROM bad", "SELECT 'ab'", 1, 1, 0, 0),
    ("SELECT 1", "SELECT s FROM bad", 0, 0, 0, 0),
    ("SELECT 9e999", "SELECT 1e999", 1, 1, 1, 1),
    ("SELECT 0.0 * 9e999", "SELECT NULL", 1, 1, 1, 1),
    ("SELECT 9223372036854775807", "SELECT 9223372036854775807.0", 0, 0, 0, 0),
    ("SELECT 9007199254740993", "SELECT 9007199254740992.0", 0, 0, 0, 0),
    ("SELECT 0.1 + 0.2", "SELECT 0.3", 0, 0, 0, 0),
    ("SELECT name FROM t WHERE name = 'O''Neil'", 'SELECT name FROM t WHERE name = "O\'Neil"', 1, 1, 1, 1),
    ("SELECT id FROM t WHERE name = 'Ann'", 'SELECT id FROM t WHERE name = "Ann"', 1, 1, 1, 1),
    ("SELECT value FROM t WHERE id = 1", "SELECT value FROM t WHERE id = 1", 0, 0, 1, 1),
    ("SELECT value FROM t WHERE id = 3", "SELECT value FROM t WHERE id = 3", 0, 0, 1, 1),
    ("SELECT id FROM t WHERE value = 'two'", "SELECT id FROM t WHERE Value = 'two'", 1, 1, 1, 1),
    ("SELECT id FROM t WHERE id >= 3", "SELECT id FROM t WHERE id > = 3", 1, 1, 0, 0),
    ("SELECT id FROM t WHERE id != 3", "SELECT id FROM t WHERE id <> 3", 1, 1, 1, 1),
    ("SELECT 2020", "SELECT YEAR(CURDATE())", 1, 1, 0, 0),
    ("SELECT id FROM t", "SELECT id FROM t; SELECT 5", 1, 0, 0, 0),
    ("SELECT id FROM t", "SELECT id FROM t;", 1, 1, 1, 1),
    ("SELECT id FROM t", "SELECT id FROM t -- all of them", 1, 1, 1, 1),
    ("SELECT id FROM t WHERE 0", "-- nothing", 1, 1, 1, 1),
    ("SELECT id FROM t WHERE 0", ";", 1, 1, 1, 1),
    ("SELECT id FROM t WHERE 0", "; SELECT 1", 1, 0, 0, 0),
    ("SELECT id FROM t", ";", 0, 0, 0, 0),
    ("SELECT id FROM t WHERE 0", "no answer", 0, 0, 0, 0),
    ("SELECT id FROM t", "SELECT nothing FROM t", 0, 0, 0, 0),
    ("SELECT id FROM t", "select id from T", 1, 1, 1, 1),
    ("SELECT id, id FROM t", "SELECT id, 1 FROM t", 0, 0, 0, 0.769231),
    ("SELECT id, n FROM t", "SELECT n, id FROM t", 1, 1, 0, 1),
    ("SELECT name, x FROM t", "SELECT name, x FROM t UNION ALL SELECT name, x FROM t", 0, 0, 1, 1),
    (
        "SELECT name FROM t WHERE id IN (SELECT id FROM t ORDER BY id)",
        "SELECT name FROM t WHERE id < 9 ORDER BY id DESC",
        0,
        0,
        1,
        0,
    ),
    ("SELECT name FROM t ORDER  BY id", "SELECT name FROM t ORDER BY id DESC", 1, 1, 1, 0),
    (
        "SELECT name, count(*) FROM t GROUP BY name",
        "SELECT count(*), name FROM t GROUP BY name ORDER BY 1",
        1,
        1,
        0,
        0.166667,
    ),
    ("SELECT 1, 2, 3, 4", "SELECT 4, 3, 2, 1", 1, 1, 0, 1),
    ("SELECT 1, 1, 2, 2", "SELECT 2, 2, 1, 1", 1, 1, 0, 1),
    ("SELECT 1, 1, 2", "SELECT 1, 2, 2", 0, 0, 0, 1),
    ("SELECT id FROM t WHERE 0", "", 0, 0, 1, 1),
    ("SELECT id FROM t WHERE 0", " \n", 0, 0, 1, 1),
    ("SELECT id FROM t", "", 0, 0, 0, 0),
    ("SELECT x, name FROM t", "SELECT n, name FROM t", 0, 0, 0, 0.875),
    ("SELECT name FROM t WHERE id <= 2", "SELECT name FROM t", 0, 0, 0, 0.8),
    ("SELECT id, name FROM t WHERE id <= 2", "SELECT name, id FROM t WHERE id <= 2", 1, 1, 0, 1),
    ("SELECT id, name FROM t WHERE id <= 2", "SELECT id FROM t WHERE id <= 3", 0, 0, 0, 0.5),
    ("WITH a AS (SELECT id FROM t) SELECT * FROM a", "SELECT id FROM t", 1, 1, 1, 1),
    ("SELECT id FROM t", "VALUES (1), (2), (3), (4)", 1, 1, 1, 1),
    ("SELECT 'distinct'", "SELECT DISTINCT 'distinct'", 1, 1, 1, 1),
    ("SELECT id FROM t LIMIT 1", "SELECT min(id) FROM t", 1, 1, 1, 1),
    ("SELECT True", "SELECT 1", 1, 1, 1, 1),
    ("SELECT '1'", "SELECT CAST(1 AS TEXT)", 1, 1, 1, 1),
    ("SELECT upper(name) FROM t", "SELECT UPPER(name) FROM t", 1, 1, 1, 1),
    ("SELECT -0.0", "SELECT 0", 1, 1, 1, 1),
]


@pytest.fixture
def questions(tmp_path: Path) -> QuestionSet:
    file = tmp_path / "t" / "t.sqlite"
    file.parent.mkdir()
    connection = sqlite3.connect(file)
    connection.executescript(CONTENT)
    connection.close()
    asked = tuple(
        Question(position=i, key=i, db_id="t", question="?", gold=case[0], databases=(str(file),))
        for i, case in enumerate(CASES)
    )
    return QuestionSet(name="corners", questions=asked, whole=len(asked))


ANSWERS = tuple(Answer(candidates=(case[1],)) for case in CASES)


def test_spider(questions: QuestionSet) -> None:
    with Runner(BenchmarkExecution(executors=1), "ignore") as runner:
        judge = SpiderJudge(questions, runner, Voting("value_aware", "spider"))
        verdicts = [judged.verdict for judged in judge.judge(questions.questions, ANSWERS)]
    for case, verdict in zip(CASES, verdicts, strict=True):
        assert (verdict["exec"], verdict["exec_keep_distinct"]) == case[2:4], case


def test_bird(questions: QuestionSet) -> None:
    with Runner(BenchmarkExecution(executors=1), "strict") as runner:
        judge = BirdJudge(runner, Voting("value_aware", "bird"))
        verdicts = [judged.verdict for judged in judge.judge(questions.questions, ANSWERS)]
    for case, verdict in zip(CASES, verdicts, strict=True):
        assert (verdict["ex"], verdict["soft_f1"]) == case[4:6], case


def test_corrected_columns(questions: QuestionSet) -> None:
    """Where a corrected column differs from the official one, and nowhere else."""
    with Runner(BenchmarkExecution(executors=1), "ignore") as runner:
        judge = SpiderJudge(questions, runner, Voting("value_aware", "spider"))
        spider = [judged.verdict for judged in judge.judge(questions.questions, ANSWERS)]
    with Runner(BenchmarkExecution(executors=1), "strict") as runner:
        judged = BirdJudge(runner, Voting("value_aware", "bird")).judge(questions.questions, ANSWERS)
        bird = [one.verdict for one in judged]
    changed = {v["sql"]: v["exec_corrected"] for v in spider if v["exec_corrected"] != v["exec"]}
    assert changed == {
        "SELECT 1, 10": 1,
        "SELECT value FROM t WHERE id = 1": 1,
        "SELECT value FROM t WHERE id = 3": 1,
        "SELECT name FROM t WHERE id < 9 ORDER BY id DESC": 1,
        "SELECT name FROM t ORDER BY id DESC": 0,
        "-- nothing": 0,
        ";": 0,
        "; SELECT 1": 0,
    }
    assert {v["sql"] for v in bird if v["ex_corrected"] != v["ex"]} == {"-- nothing", ";", "", " \n"}


def test_a_long_list_of_values_runs_as_in_the_official_scripts(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "t.sqlite")
    connection.executescript("CREATE TABLE t (id INTEGER); INSERT INTO t VALUES (7), (50000), (99999999)")
    connection.close()
    file, numbers = str(tmp_path / "t.sqlite"), ", ".join(map(str, range(100_000)))
    sql = f"\ufeffSELECT id FROM t WHERE id IN ({numbers}) ORDER BY id; -- {len(numbers)} characters"
    known = Known()
    with Runner(BenchmarkExecution(executors=1), "strict") as runner:
        runner.run([(file, sql)], known)
    assert known[file, sql].rows == ((7,), (50000,))
