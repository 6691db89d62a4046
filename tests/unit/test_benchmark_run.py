"""Whole benchmark runs on a small Spider and a small BIRD layout: files written, bad examples, bad input."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import bird, spider
from benchmarks.carriers import BenchmarkError
from benchmarks.folder import refuse_results
from benchmarks.scoring import runner
from benchmarks.study.candidates import read_candidates
from conf.errors import ConfigError, QuorumError
from conf.load import load
from conf.schema.benchmark import BirdBenchmark, SpiderBenchmark
from conf.schema.selection import StudyConfig
from selection.reranker import RerankerUnusable
from tests.unit.losing_pool import LosingPool

QUESTIONS = (
    ("How many dogs are there?", "SELECT count(*) FROM dog"),
    ("List the names of dogs older than 3, youngest first.", "SELECT name FROM dog WHERE age > 3 ORDER BY age"),
    ("Which names are there?", "SELECT DISTINCT name FROM dog"),
    ("Broken", "SELECT name FROM missing_table"),
)
DOGS = [(1, "Rex", 3, "a"), (2, "Ada", 5, "b"), (3, "Rex", 4, "c")]


def write_database(file: Path, rows: list[tuple[Any, ...]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(file)
    connection.execute("CREATE TABLE dog (id INTEGER PRIMARY KEY, name TEXT, age INTEGER, value TEXT)")
    connection.executemany("INSERT INTO dog VALUES (?, ?, ?, ?)", rows)
    connection.commit()
    connection.close()


@pytest.fixture
def spider_root(tmp_path: Path) -> Path:
    root = tmp_path / "spider"
    write_database(root / "database" / "dogs" / "dogs.sqlite", DOGS)
    write_database(root / "database" / "dogs" / "dogs_v1.sqlite", [*DOGS, (4, "Bo", 3, "d")])
    entries = [{"db_id": "dogs", "question": q, "query": sql} for q, sql in QUESTIONS]
    (root / "dev.json").write_text(json.dumps(entries))
    tables = [
        {
            "db_id": "dogs",
            "table_names_original": ["dog"],
            "column_names_original": [[-1, "*"], [0, "id"], [0, "name"], [0, "age"], [0, "value"]],
            "foreign_keys": [],
        }
    ]
    (root / "tables.json").write_text(json.dumps(tables))
    return root


@pytest.fixture
def bird_root(tmp_path: Path) -> Path:
    root = tmp_path / "bird"
    write_database(root / "dev_databases" / "dogs" / "dogs.sqlite", DOGS)
    entries = [
        {"question_id": 7 + i, "db_id": "dogs", "question": q, "evidence": "", "SQL": sql, "difficulty": "simple"}
        for i, (q, sql) in enumerate(QUESTIONS)
    ]
    (root / "dev.json").write_text(json.dumps(entries))
    return root


def run_spider(root: Path, predictions: Path, *settings: str) -> Path:
    output = root.parent / "run"
    arguments = [f"data.root={root}", f"predictions={predictions}", f"output={output}", *settings]
    assert spider.job(load(SpiderBenchmark, "benchmark_spider", arguments)) == 0
    return output


def run_bird(root: Path, predictions: Path, *settings: str) -> Path:
    output = root.parent / "run"
    arguments = [f"data.root={root}", f"predictions={predictions}", f"output={output}", *settings]
    assert bird.job(load(BirdBenchmark, "benchmark_bird", arguments)) == 0
    return output


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def write(tmp_path: Path, name: str, text: str) -> Path:
    (tmp_path / name).write_text(text)
    return tmp_path / name


def test_spider_lines(spider_root: Path, tmp_path: Path) -> None:
    predicted = (
        "SELECT COUNT(id) FROM dog\nSELECT name FROM dog WHERE age >= 4 ORDER BY age\nSELECT value FROM dog\nSELECT 1\n"
    )
    output = run_spider(spider_root, write(tmp_path, "p.txt", predicted))
    verdicts = lines(output / "verdicts.jsonl")
    expected = ["index", "db_id", "hardness", "exec", "exact", "exec_keep_distinct", "error"]
    assert list(verdicts[0])[:7] == expected
    assert [v["exec"] for v in verdicts] == [1, 1, 0, 0]
    assert [v["exact"] for v in verdicts] == [0, 0, 0, 0]
    assert verdicts[2]["error"] is None  # a lower-case `value` becomes 1: SELECT 1 FROM dog
    assert verdicts[3]["error"] == "gold: the official parser refuses the gold query: no table or alias missing_table"
    scores = json.loads((output / "scores.json").read_text())
    assert scores["totals"]["exec"]["mean"] == 0.5
    assert scores["gold_errors"] == [3]
    assert scores["by_level"]["easy"]["questions"] == 2
    assert (output / "official" / "gold.txt").read_text().splitlines()[0] == "SELECT count(*) FROM dog\tdogs"
    assert (output / "official" / "predict.txt").read_text() == predicted
    page = (output / "report.html").read_text()
    assert "Which names are there?" in page
    assert "http://" not in page
    assert "https://" not in page


def test_spider_needs_every_instance(spider_root: Path, tmp_path: Path) -> None:
    predicted = "SELECT 3\nSELECT name FROM dog WHERE id > 1 ORDER BY age\nSELECT name FROM dog WHERE name <> 'Bo'\n\n"
    verdicts = lines(run_spider(spider_root, write(tmp_path, "p.txt", predicted)) / "verdicts.jsonl")
    assert [v["exec"] for v in verdicts] == [0, 0, 0, 0]
    exhibit = (tmp_path / "run" / "report.html").read_text()
    assert '"instance": 1' in exhibit


def test_several_candidates_are_voted_on(spider_root: Path, tmp_path: Path) -> None:
    rows = [
        {"index": 0, "candidates": ["SELECT 9", "SELECT count(*)\n-- all\nFROM dog", "SELECT COUNT(id) FROM dog"]},
        {"index": 1, "candidates": ["nonsense", "SELECT 1 WHERE 0", "SELECT name FROM dog WHERE age > 3 ORDER BY age"]},
        {"index": 2, "candidates": ["SELECT name FROM dog"] * 3},
        {"index": 3, "candidates": ["DROP TABLE dog"] * 3},
    ]
    file = write(tmp_path, "c.jsonl", "".join(json.dumps(row) + "\n" for row in reversed(rows)))
    output = run_spider(spider_root, file)
    verdicts = lines(output / "verdicts.jsonl")
    assert [v["index"] for v in verdicts] == [0, 1, 2, 3]
    assert [v["chosen"] for v in verdicts][:2] == [2, 2]
    assert [v["exec"] for v in verdicts] == [1, 1, 1, 0]
    assert [v["exec_keep_distinct"] for v in verdicts] == [1, 1, 0, 0]
    scores = json.loads((output / "scores.json").read_text())
    assert scores["recall_at"] == [0.25, 0.5, 0.75]
    assert scores["pass_at"][0] == scores["mean_at_n"]["mean"] == pytest.approx((2 / 3 + 1 / 3 + 1) / 4, abs=1e-6)
    assert scores["voters"]["value_aware"]["mean"] == 0.75
    assert scores["voters"]["first"]["mean"] == 0.25
    assert scores["error_kinds"]["forbidden"] == 3
    assert sum(scores["error_kinds"].values()) == 4
    connection = sqlite3.connect(spider_root / "database" / "dogs" / "dogs.sqlite")
    assert connection.execute("SELECT count(*) FROM dog").fetchone() == (3,)
    connection.close()


def test_bird_object_and_efficiency(bird_root: Path, tmp_path: Path) -> None:
    golds = [sql for _, sql in QUESTIONS]
    answers = [golds[0], "SELECT name FROM dog WHERE age > 3 ORDER BY age DESC", "SELECT 1", ""]
    table = {str(7 + i): f"{sql}\t----- bird -----\tdogs" for i, sql in enumerate(answers)}
    output = run_bird(
        bird_root, write(tmp_path, "p.json", json.dumps(table)), "metrics.ves=true", "metrics.ves_repeats=2"
    )
    verdicts = lines(output / "verdicts.jsonl")
    assert list(verdicts[0])[:7] == [
        *("question_id", "db_id", "difficulty", "ex", "soft_f1", "soft_f1_unordered", "error")
    ]
    assert [v["ex"] for v in verdicts] == [1, 1, 0, 0]
    assert [v["soft_f1"] for v in verdicts] == [1.0, 0.0, 0.0, 0.0]
    assert [v["soft_f1_unordered"] for v in verdicts] == [1.0, 1.0, 0.0, 0.0]
    assert verdicts[0]["ves"] > 0
    assert verdicts[2]["ves"] == 0.0
    assert verdicts[3]["error"].startswith("gold: no such table")
    assert json.loads((output / "official" / "predict_dev.json").read_text())["7"] == table["7"]


def test_mini_dev_asks_two_questions_twice(bird_root: Path, tmp_path: Path) -> None:
    entries = json.loads((bird_root / "dev.json").read_text())
    (bird_root / "mini_dev_sqlite.json").write_text(json.dumps([*entries[:2], *entries[:2], *entries[2:]]))
    golds = [QUESTIONS[i][1] for i in (0, 1, 0, 1, 2, 3)]
    table = {str(i): f"{sql}\t----- bird -----\tdogs" for i, sql in enumerate(golds)}
    mini = "data.split=mini_dev"
    output = run_bird(bird_root, write(tmp_path, "p.json", json.dumps(table)), mini)
    verdicts = lines(output / "verdicts.jsonl")
    assert [v["question_id"] for v in verdicts] == [7, 8, 7, 8, 9, 10]
    assert [v["ex"] for v in verdicts] == [1, 1, 1, 1, 1, 0]
    assert json.loads((output / "official" / "predict_dev.json").read_text()) == table
    run_bird(bird_root, output / "candidates.jsonl", mini, f"output={tmp_path / 'again'}", "limit=3")
    assert [v["ex"] for v in lines(tmp_path / "again" / "verdicts.jsonl")] == [1, 1, 1]
    config = load(StudyConfig, "selection_study", [f"candidates={output / 'candidates.jsonl'}", "output=unused"])
    assert [one.candidates for one in read_candidates(config)] == [(sql,) for sql in golds]


def test_places_pair_alike_with_a_limit(bird_root: Path, tmp_path: Path) -> None:
    """Ids 2 to 5 are places of other questions: read by id, the first two would be answered by the last two."""
    entries = json.loads((bird_root / "dev.json").read_text())
    (bird_root / "dev.json").write_text(
        json.dumps([{**entry, "question_id": 2 + i} for i, entry in enumerate(entries)])
    )
    table = {str(i): f"{sql}\t----- bird -----\tdogs" for i, (_, sql) in enumerate(QUESTIONS)}
    output = run_bird(bird_root, write(tmp_path, "p.json", json.dumps(table)), "limit=2")
    assert [(v["question_id"], v["ex"]) for v in lines(output / "verdicts.jsonl")] == [(2, 1), (3, 1)]


@pytest.mark.parametrize("there", ["scores.json", "report.html", "config.yaml", "generations.jsonl", "official"])
def test_predictions_into_a_folder_with_results_are_refused_before_anything_is_read(there: str, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / there).write_text("earlier")
    with pytest.raises(BenchmarkError, match=rf"output=.*run holds earlier results \({there}\): choose another output"):
        run_bird(tmp_path / "no_questions", tmp_path / "no_predictions")
    assert (tmp_path / "run" / there).read_text() == "earlier"


def test_a_policy_continues_its_generations_alone(tmp_path: Path) -> None:
    for name in ("generations.jsonl", "verdicts.jsonl"):
        refuse_results(str(tmp_path), generates=True)
        (tmp_path / name).write_text("")
    refuse_results(str(tmp_path), generates=True)  # killed while it wrote its results
    (tmp_path / "scores.json").write_text("")
    with pytest.raises(BenchmarkError, match="holds earlier results"):
        refuse_results(str(tmp_path), generates=True)
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "config.yaml").write_text("")
    with pytest.raises(BenchmarkError, match=r"holds earlier results \(config.yaml\)"):
        refuse_results(str(tmp_path / "training"), generates=True)


@pytest.mark.parametrize(
    "selection", ["value_aware", "log_probability", "confidence_weighted", "soft_vote", "majority"]
)
def test_the_order_of_candidates_with_nan_never_decides(selection: str, bird_root: Path, tmp_path: Path) -> None:
    pairs = [(QUESTIONS[0][1], "NaN"), ("SELECT 12345", "-1.0")]
    for order in (pairs, pairs[::-1]):
        sqls, logprobs = zip(*order, strict=True)
        line = f'{{"question_id": 7, "candidates": {json.dumps(sqls)}, "logprobs": [{", ".join(logprobs)}]}}\n'
        with pytest.raises(BenchmarkError, match="p.jsonl line 1: .*NaN is no JSON number"):
            run_bird(bird_root, write(tmp_path, "p.jsonl", line), "limit=1", f"selection={selection}")


def test_mini_dev_counts_questions_by_place(bird_root: Path, tmp_path: Path) -> None:
    (bird_root / "dev.json").rename(bird_root / "mini_dev_sqlite.json")
    table = {str(i): f"{sql}\t----- bird -----\tdogs" for i, (_, sql) in enumerate(QUESTIONS)}
    output = run_bird(bird_root, write(tmp_path, "p.json", json.dumps(table)), "data.split=mini_dev")
    assert [v["ex"] for v in lines(output / "verdicts.jsonl")] == [1, 1, 1, 0]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.txt", "SELECT 1\n", r"4 lines expected, one query a question; found 1"),
        ("p.txt", "SELECT 1\n" * 5, r"4 lines expected, one query a question; found 5"),
        ("p.jsonl", '{"index": 0, "candidates": ["SELECT 1"]}\n', r"predictions for 4 questions expected; 3 missing"),
        ("p.jsonl", '{"index": 0, "candidates": []}\n', r"line 1: a list of at least one SQL text"),
        ("p.jsonl", '{"index": 0}\n', r"line 1: a list of at least one SQL text"),
        ("p.jsonl", "{nonsense\n", r"line 1: a JSON object expected"),
        ("p.jsonl", '{"candidates": ["SELECT 1"]}\n', r'a number under "index" or "question_id"'),
        ("p.jsonl", '{"index": 0, "candidates": ["a"], "logprobs": []}\n', r'"logprobs" must hold one number'),
        ("p.json", '{"0": "SELECT 1"}', r"predictions for 4 questions expected; 3 missing \(1, 2, 3\)"),
    ],
)
def test_wrong_predictions(name: str, text: str, message: str, spider_root: Path, tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=message):
        run_spider(spider_root, write(tmp_path, name, text))


def test_missing_files_say_what_was_expected(spider_root: Path, tmp_path: Path) -> None:
    good = write(tmp_path, "p.txt", "SELECT 1\n" * 4)
    with pytest.raises(BenchmarkError, match=r"predictions=.*absent.* a file expected there"):
        run_spider(spider_root, tmp_path / "absent.txt")
    with pytest.raises(BenchmarkError, match=r"test.json or .*test_data/dev.json"):
        run_spider(spider_root, good, "data.split=test")
    with pytest.raises(BenchmarkError, match="is no folder"):
        run_spider(tmp_path / "nowhere", good)
    (spider_root / "database" / "dogs" / "dogs_v1.sqlite").write_text("not a database")
    with pytest.raises(BenchmarkError, match=r"a SQLite database expected at .*dogs_v1.sqlite"):
        run_spider(spider_root, good)
    (spider_root / "database" / "dogs" / "dogs.sqlite").unlink()
    with pytest.raises(BenchmarkError, match=r"1 databases are missing .*<db_id>/<db_id>.sqlite: dogs \(4 questions"):
        run_spider(spider_root, good)
    (spider_root / "dev.json").write_text("[{}]")
    with pytest.raises(QuorumError, match=r"entry 0: key 'db_id' is missing"):
        run_spider(spider_root, good)


def test_a_reranker_that_cannot_be_used_is_refused_before_the_answers_are_asked_for(
    spider_root: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        RerankerUnusable, match=r"reranker=.*absent.json: a file written by benchmarks.study.train_reranker"
    ):
        run_spider(spider_root, tmp_path / "absent.txt", "selection=reranker", f"reranker={tmp_path / 'absent.json'}")


def test_contradictory_settings() -> None:
    base = ["data.root=x", "output=y"]
    for settings, message in (
        ([], "exactly one of predictions=FILE"),
        (["predictions=a", "model.path=b"], "given: predictions, model.path"),
        (["model.api=http://localhost"], "model.name=NAME"),
        (["predictions=a", "selection=value"], "selection"),
        (["predictions=a", "selection=reranker"], "reranker=FILE"),
    ):
        with pytest.raises(ConfigError, match=message):
            load(SpiderBenchmark, "benchmark_spider", [*base, *settings])


def test_a_damaged_database_is_no_score(bird_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entries = json.loads((bird_root / "dev.json").read_text())
    entries.append({**entries[0], "question_id": 99, "db_id": "torn"})
    (bird_root / "dev.json").write_text(json.dumps(entries))
    torn = bird_root / "dev_databases" / "torn" / "torn.sqlite"
    torn.parent.mkdir()
    torn.write_bytes(b"SQLite format 3\x00" + b"\xff" * 8000)
    rows = [{"question_id": entry["question_id"], "candidates": ["SELECT count(*) FROM dog"]} for entry in entries]
    file = write(tmp_path, "p.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    output = run_bird(bird_root, file)
    verdicts = lines(output / "verdicts.jsonl")
    assert [v["ex"] for v in verdicts] == [1, 0, 0, 0, None]
    scores = json.loads((output / "scores.json").read_text())
    assert (scores["unscorable"], scores["totals"]["questions"], scores["totals"]["ex"]["mean"]) == (1, 4, 0.25)
    assert "1 questions could not be scored" in capsys.readouterr().out


LOST = "SELECT count(*) FROM dog WHERE 1"


def lose(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = LosingPool(1)
    pool.loses = lambda query: query.sql.split() == LOST.split()
    monkeypatch.setattr(runner, "ExecutorPool", lambda count: pool)


@pytest.mark.parametrize("run", [run_spider, run_bird])
def test_lost_candidates_are_not_wrong_ones(
    run: Callable[..., Path],
    spider_root: Path,
    bird_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lose(monkeypatch)
    right = QUESTIONS[0][1]
    key, first, root = ("index", 0, spider_root) if run is run_spider else ("question_id", 7, bird_root)
    groups = [[right, LOST, right], [QUESTIONS[1][1], "SELECT 1", "SELECT 2"], ["SELECT 1"] * 3, ["SELECT 1"] * 3]
    # Spider's verdict is of the query without its DISTINCT, which alone is lost.
    greedy = ["SELECT 8"] * 3 + [LOST.replace("SELECT", "SELECT DISTINCT") if run is run_spider else LOST]
    rows = [{key: first + i, "candidates": groups[i], "greedy": greedy[i]} for i in range(4)]
    output = run(root, write(tmp_path, "c.jsonl", "".join(json.dumps(row) + "\n" for row in rows)))
    scores = json.loads((output / "scores.json").read_text())
    metric = "exec" if run is run_spider else "ex"
    assert scores["totals"][metric]["mean"] == 0.25
    assert (scores["unscorable"], scores["incomplete"], scores["candidates"], scores["n"]) == (0, 2, 12, 3)
    assert scores["pass_at"][0] == scores["mean_at_n"]["mean"] == pytest.approx(1 / 6, abs=1e-6)
    assert scores["recall_at"][2] == 0.5
    assert (scores["voters"]["first"]["mean"], scores["voters"]["greedy"]["mean"]) == (0.5, 0.0)
    assert scores["greedy"]["mean"] == 0.0
    assert "2 questions lost answers" in capsys.readouterr().out
    assert "questions that lost answers" in (output / "report.html").read_text()


@pytest.mark.parametrize("run", [run_spider, run_bird])
def test_a_query_that_loses_its_process_by_its_own_doing_is_wrong(
    run: Callable[..., Path], spider_root: Path, bird_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = LosingPool(1)
    pool.loses = lambda query: query.sql.split() == LOST.split()
    pool.own_doing = True
    monkeypatch.setattr(runner, "ExecutorPool", lambda count: pool)
    key, first, root = ("index", 0, spider_root) if run is run_spider else ("question_id", 7, bird_root)
    groups = [[QUESTIONS[0][1], LOST], [LOST, LOST], ["SELECT 1"] * 2, ["SELECT 1"] * 2]
    rows = [{key: first + i, "candidates": groups[i]} for i in range(4)]
    output = run(root, write(tmp_path, "c.jsonl", "".join(json.dumps(row) + "\n" for row in rows)))
    scores = json.loads((output / "scores.json").read_text())
    assert (scores["unscorable"], scores["incomplete"]) == (0, 0)
    assert scores["mean_at_n"]["mean"] == pytest.approx(1 / 8)


def test_a_lost_vote_leaves_a_right_candidate_out(spider_root: Path, tmp_path: Path, monkeypatch) -> None:
    """Votes are taken from the query as written, verdicts without its DISTINCT."""
    pool = LosingPool(1)
    pool.loses = lambda query: query.sql == "SELECT DISTINCT count(*) FROM dog"
    monkeypatch.setattr(runner, "ExecutorPool", lambda count: pool)
    rows = [{"index": i, "candidates": ["SELECT DISTINCT count(*) FROM dog", "SELECT 9"]} for i in range(4)]
    output = run_spider(spider_root, write(tmp_path, "c.jsonl", "".join(json.dumps(row) + "\n" for row in rows)))
    scores = json.loads((output / "scores.json").read_text())
    assert (scores["incomplete"], scores["n"], scores["voters"]) == (4, 0, {})


def test_a_verdict_that_lacks_one_column_leaves_that_mean_alone(
    spider_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = LosingPool(1)
    pool.loses = lambda query: "DISTINCT" in query.sql
    monkeypatch.setattr(runner, "ExecutorPool", lambda count: pool)
    output = run_spider(spider_root, write(tmp_path, "p.txt", "".join(f"{sql}\n" for _, sql in QUESTIONS)))
    totals = json.loads((output / "scores.json").read_text())["totals"]
    assert (totals["exec"]["mean"], totals["exec_keep_distinct"]["mean"]) == (0.75, pytest.approx(2 / 3, abs=1e-6))


def test_hostile_predictions_cost_only_themselves(spider_root: Path, tmp_path: Path) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    predicted = f"{endless}\nSELECT randomblob(900000000)\nSELECT DISTINCT name FROM dog\n{'(' * 3000}\n"
    output = run_spider(
        spider_root, write(tmp_path, "p.txt", predicted), "execution.budget.vm_steps=1000000", "execution.executors=1"
    )
    verdicts = lines(output / "verdicts.jsonl")
    assert [v["exec"] for v in verdicts] == [0, 0, 1, 0]
    assert all(verdicts[i]["error"] for i in (0, 1, 3))


def test_greedy_answers_stand_beside_the_sampled_ones(spider_root: Path, tmp_path: Path) -> None:
    rows = [{"index": i, "candidates": ["SELECT 8", "SELECT 9"], "greedy": sql} for i, (_, sql) in enumerate(QUESTIONS)]
    file = write(tmp_path, "c.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    output = run_spider(spider_root, file, "selection=greedy")
    scores = json.loads((output / "scores.json").read_text())
    assert scores["totals"]["exec"]["mean"] == scores["greedy"]["mean"] == 0.75
    assert scores["voters"]["greedy"]["mean"] == 0.75
    assert scores["recall_at"] == [0.0, 0.0]
    del rows[1]["greedy"]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(BenchmarkError, match="question 1, selection=greedy: no candidate was decoded greedily"):
        run_spider(spider_root, file, "selection=greedy", f"output={tmp_path / 'other'}")
