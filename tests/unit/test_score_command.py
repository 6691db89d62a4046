"""python -m rewards.score on real files: the contract of its output, bad lines, hostile lines."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import pytest

from conf.cli import run_entrypoint
from conf.schema.score import ScoreConfig
from rewards.score import run
from tests.dogs import write_dogs

ROOT = Path(__file__).resolve().parents[2]
THINK = "<think>" + "The question asks for dogs, so the dog table is read and its rows are counted. " * 2 + "</think>"
Score = Callable[..., tuple[int, str]]


@pytest.fixture
def databases(tmp_path: Path) -> Path:
    folder = tmp_path / "databases" / "dogs"
    folder.mkdir(parents=True)
    for name, rows in (("dogs.sqlite", [("rex", 3)]), ("dogs_v1.sqlite", [("rex", 3), ("edge", 2)])):
        write_dogs(folder / name, rows)
    return tmp_path / "databases"


def arguments(tmp_path: Path, lines: Sequence[str]) -> list[str]:
    """Writes the cases and returns the command line."""
    (tmp_path / "cases.jsonl").write_text("".join(line + "\n" for line in lines))
    return [
        f"input={tmp_path / 'cases.jsonl'}",
        f"databases={tmp_path / 'databases'}",
        f"output={tmp_path / 'scores.jsonl'}",
    ]


@pytest.fixture
def score(databases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Score:
    """Runs the command in this process; its exit code and what it wrote to stderr."""

    def run_command(lines: Sequence[str], *overrides: str) -> tuple[int, str]:
        code = run_entrypoint(ScoreConfig, "score", run, "", [*arguments(tmp_path, lines), *overrides])
        return code, capsys.readouterr().err

    return run_command


def case(identity: object, sql: str, gold: str = "SELECT name FROM dog", **changes: object) -> str:
    fields = {"id": identity, "db_id": "dogs", "gold_sqls": [gold], "completion": sql, "denotation": "spider"}
    return json.dumps({**fields, **changes})


def results(tmp_path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines()]


SQL = "SELECT name FROM dog"


@pytest.mark.parametrize(
    ("completion", "form"),
    [
        (SQL, "it has no <think> block"),
        ("<think>short</think>" + SQL, "its reasoning has 5 characters, not more than 100"),
        ("Sure. " + THINK + SQL, "text stands before its <think>"),
        (THINK + THINK + SQL, "it has more than one <think> or </think>"),
        (THINK.removeprefix("<think>") + SQL, "it has </think> without <think>"),
    ],
)
def test_a_right_answer_without_the_form_says_why_it_is_zero(
    completion: str, form: str, databases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = completion.replace("name", "age")
    lines = [case(1, completion), case(2, completion), case(3, wrong), case(4, completion, thinking=False)]
    assert run_entrypoint(ScoreConfig, "score", run, "", arguments(tmp_path, lines)) == 0
    one, two, three, four = results(tmp_path)
    for gated in (one, two, three):
        assert (gated["total"], gated["flags"], gated["form"]) == (0, ["format_gate"], form)
    assert one["components"]["execution"] == 2
    assert four["total"] == 3
    assert four["components"]["format"] is None
    assert "form" not in four
    told = capsys.readouterr().out.splitlines()
    assert told[:2] == [
        f"2 completions, right ones, lost their total by their form: {form}",
        f"1 completions lost their total by their form: {form}",
    ]
    assert 'give lines "thinking": false, or set reward.format.thinking=false' in told[2]


def test_what_the_form_does_not_cost_is_not_said(
    databases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [case(1, THINK + SQL), case(2, ""), case(3, "<think>never closed " + SQL), case(4, SQL, thinking="no")]
    assert run_entrypoint(ScoreConfig, "score", run, "", arguments(tmp_path, lines)) == 1
    assert [set(one) & {"form", "flags"} for one in results(tmp_path)] == [set()] * 3
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "line 4: thinking is neither true nor false\n")


def test_without_thinking_a_think_tag_is_named(score: Score, tmp_path: Path) -> None:
    assert score([case(1, SQL), case(2, THINK + SQL)], "reward.format.thinking=false") == (0, "")
    plain, tagged = results(tmp_path)
    assert (plain["total"], "form" in plain) == (4, False)
    assert (tagged["components"]["execution"], tagged["form"]) == (0, "it holds a think tag, which is taken for SQL")


def test_every_field_of_the_contract(score: Score, tmp_path: Path) -> None:
    lines = [case("a", THINK + "SELECT name FROM dog"), case(2, THINK + "DROP TABLE dog"), case(None, "")]
    assert score(lines) == (0, "")
    right, forbidden, empty = results(tmp_path)
    assert right == {
        "id": "a",
        "status": "scored",
        "components": {"format": 1, "execution": 2, "atomic": 1, "memory": 1},
        "total": 4.0,
        "sql": "SELECT name FROM dog",
        "error": None,
        "error_kind": None,
    }
    assert (forbidden["id"], forbidden["error_kind"], forbidden["total"]) == (2, "forbidden", 1.0)
    assert (empty["id"], empty["sql"], empty["error_kind"], empty["total"]) == (None, None, "not_a_query", 0.0)


def test_bad_lines_are_named_and_the_others_scored(score: Score, tmp_path: Path) -> None:
    lines = ["{broken", case(1, THINK + "SELECT name FROM dog"), '{"id": 3}', case(4, "", db_id="../dogs"), "", "[]"]
    lines += [case(7, "", denotation="other"), case(8, "", gold_sqls=[]), case(9, THINK + "SELECT 1")]
    lines += [case(float("nan"), ""), case("big", "").replace('"big"', "1e999")]
    code, errors = score(lines)
    assert code == 1
    assert [line.split(":")[0] for line in errors.splitlines()] == [f"line {n}" for n in (1, 3, 4, 6, 7, 8, 10, 11)]
    assert [result["id"] for result in results(tmp_path)] == [1, 9]


def test_names_that_no_database_can_have_cost_their_own_lines_alone(score: Score, tmp_path: Path) -> None:
    names = ["", ".", "..", "../dogs", "dogs/", "d\0gs", "\ud83d", "d" * 249, "ü" * 125]
    lines = [case(number, "", db_id=name) for number, name in enumerate(names)]
    code, errors = score([*lines, case("longest", "", db_id="d" * 248), case("right", THINK + "SELECT name FROM dog")])
    assert code == 1
    assert [line.partition(" db_id ")[0] for line in errors.splitlines()] == [f"line {n}:" for n in range(1, 10)]
    assert [(r["id"], r["status"]) for r in results(tmp_path)] == [("longest", "unscorable"), ("right", "scored")]
    assert [r.get("cause") for r in results(tmp_path)] == ["infrastructure", None]
    score([case(1, THINK + "SELECT name FROM dog", "SELECT nothing FROM dog")])
    assert [(r["status"], r["total"], r["cause"]) for r in results(tmp_path)] == [("unscorable", None, "data")]


def test_a_think_block_that_the_prompt_opened_counts(score: Score, tmp_path: Path) -> None:
    rest = THINK.removeprefix("<think>") + "SELECT name FROM dog"
    lines = [case(0, rest), case(1, rest, thinking_opened=True), case(2, THINK + "SELECT name FROM dog")]
    lines += [case(3, "<think>" + rest, thinking_opened=True), case(4, "SELECT name FROM dog", thinking_opened=True)]
    code, errors = score([*lines, case(5, rest, thinking_opened="yes")])
    assert (code, errors) == (1, "line 6: thinking_opened is neither true nor false\n")
    found = [(r["components"]["format"], r["components"]["execution"], r["total"]) for r in results(tmp_path)]  # type: ignore[index]
    assert found == [(0, 2, 0.0), (1, 2, 4.0), (1, 2, 4.0), (0, 2, 0.0), (0, 0, 0.0)]


def test_instances_and_strict_by_setting(score: Score, tmp_path: Path) -> None:
    lines = [case(1, THINK + "SELECT name FROM dog WHERE age > 2", "SELECT name FROM dog WHERE age >= 2")]
    score(lines)
    assert results(tmp_path)[0]["components"]["execution"] == 2  # type: ignore[index]
    assert score(lines, "reward.execution.instances=all", "reward=strict") == (0, "")
    assert results(tmp_path)[0]["components"]["execution"] == 1  # type: ignore[index]


@pytest.mark.integration
def test_hostile_lines_get_their_kind_and_leave_nothing_behind(databases: Path, tmp_path: Path) -> None:
    hostile = {
        "WITH RECURSIVE t(a) AS (SELECT 1 UNION ALL SELECT a + 1 FROM t) SELECT count(*) FROM t": "timeout",
        "WITH RECURSIVE t(a) AS (SELECT 1 UNION ALL SELECT a + 1 FROM t LIMIT 10000000) SELECT a FROM t": "too_large",
        "SELECT randomblob(900000000)": "too_large",
        "SELECT printf('%.*c', 1000000000, 'x')": "too_large",
        "SELECT " + "(" * 5000 + "1" + ")" * 5000: "too_large",
        "SELECT '" + "x" * 1_000_000 + "'": "too_large",
        "SELECT 1\0": "syntax",
        "SELECT '\ud83d'": "syntax",
        "VACUUM INTO 'copy.db'": "forbidden",
        "PRAGMA writable_schema = 1": "forbidden",
        "EXPLAIN SELECT 1": "not_a_query",
    }
    before = {file: hashlib.sha256(file.read_bytes()).hexdigest() for file in databases.rglob("*") if file.is_file()}
    command = [sys.executable, "-m", "rewards.score"]
    command += arguments(tmp_path, [case(n, THINK + sql) for n, sql in enumerate(hostile)])
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [result["error_kind"] for result in results(tmp_path)] == list(hostile.values())
    assert {file: hashlib.sha256(file.read_bytes()).hexdigest() for file in before} == before
    assert sorted(file.name for file in databases.rglob("*") if file.is_file()) == ["dogs.sqlite", "dogs_v1.sqlite"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cases.jsonl", "databases", "scores.jsonl"]
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(p.info["cmdline"] or ())]


@pytest.mark.parametrize(
    ("override", "words"),
    [("reward=fine", "finer"), ("databases=/nowhere", "no such folder"), ("reward.execution.budget.row=3", "rows")],
)
def test_wrong_settings_end_with_one_sentence(score: Score, override: str, words: str) -> None:
    code, errors = score([case(1, "SELECT 1")], override)
    assert code in (1, 2)
    assert words in errors
    assert len(errors.splitlines()) == 1


def test_rewards_that_contradict_each_other_cost_no_file_of_an_earlier_run(score: Score, tmp_path: Path) -> None:
    (tmp_path / "scores.jsonl").write_text("kept")
    code, told = score([case("a", "SELECT name FROM dog")], "reward=strict", "reward.execution.weight=0",
                       "reward.memory.weight=0")  # fmt: skip
    assert (code, "reward.rank_correct_first" in told) == (2, True)
    assert (tmp_path / "scores.jsonl").read_text() == "kept"


def test_the_command_starts_without_what_it_does_not_need() -> None:
    """pandas alone takes seconds to import."""
    program = "import sys, rewards.score; print(sorted({'pandas', 'sqlite_utils', 'torch', 'ray'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[]\n", "")
