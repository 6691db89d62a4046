"""What is written never empties what is read, under whatever name the two are given."""

import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks.compare import main as compare
from benchmarks.folder import held
from conf.cli import run_entrypoint
from conf.output import OutputTaken, refuse_input, replace_text
from conf.schema.score import ScoreConfig
from measure.rewards.__main__ import main as reward_benchmark
from measure.scaling.__main__ import main as scaling
from measure.throughput.__main__ import main as throughput
from rewards.score import run
from tests.dogs import write_dogs
from tests.unit.test_compare import write_run

NAMES: dict[str, Callable[[Path], Path]] = {
    "the file itself": lambda file: file,
    "a hard link": lambda file: _linked(file, os.link),
    "a symbolic link": lambda file: _linked(file, os.symlink),
    "another spelling": lambda file: file.parent / "." / ".." / file.parent.name / file.name,
}


def _linked(file: Path, link: Callable[[Path, Path], None]) -> Path:
    other = file.with_name("other.jsonl")
    link(file, other)
    return other


@pytest.mark.parametrize("name", NAMES)
def test_scoring_refuses_to_write_into_what_it_reads(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data" / "dogs").mkdir(parents=True)
    write_dogs(tmp_path / "data" / "dogs" / "dogs.sqlite", [("rex", 3)])
    case = {"id": 1, "db_id": "dogs", "gold_sqls": ["SELECT 1"], "completion": "SELECT 1", "denotation": "spider"}
    cases = tmp_path / "cases.jsonl"
    cases.write_text(json.dumps(case) + "\n")
    arguments = [f"input={cases}", f"databases={tmp_path / 'data'}"]
    for setting, file in (("input", cases), ("database", tmp_path / "data" / "dogs" / "dogs.sqlite")):
        before = file.read_bytes()
        output = NAMES[name](file)
        assert run_entrypoint(ScoreConfig, "score", run, "", [*arguments, f"output={output}"]) == 1
        told = capsys.readouterr().err
        assert f"is the same file as input={cases}" in told if setting == "input" else "is a database" in told
        assert file.read_bytes() == before


def test_the_log_of_a_database_in_use_is_no_output(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "dogs.sqlite")) as connection:
        connection.execute("PRAGMA journal_mode=wal")
        connection.execute("CREATE TABLE dog (name TEXT)")
        os.link(tmp_path / "dogs.sqlite-wal", tmp_path / "log")
        with pytest.raises(OutputTaken, match="log is a database"):
            refuse_input("output", tmp_path / "log", {})


def test_an_input_that_only_a_descriptor_names_is_known(tmp_path: Path) -> None:
    file = tmp_path / "cases.jsonl"
    file.write_text("{}\n")
    with file.open() as stream, pytest.raises(OutputTaken, match="the same file as input=/dev/fd/"):
        refuse_input("output", file, {"input": f"/dev/fd/{stream.fileno()}", "store": None, "other": "missing"})
    refuse_input("output", tmp_path / "new", {"input": file})
    refuse_input("output", Path("/dev/null"), {"input": file})


def test_a_replaced_file_keeps_its_content_under_its_other_names(tmp_path: Path) -> None:
    first, second, link = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    first.write_text("old")
    os.link(first, second)
    link.symlink_to(first)
    replace_text(second, "new")
    replace_text(link, "new too")
    assert (first.read_text(), second.read_text(), link.read_text()) == ("old", "new", "new too")
    with pytest.raises(UnicodeEncodeError):
        replace_text(first, "\ud800")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a", "b", "c"]
    assert first.read_text() == "old"


def test_the_lock_of_a_folder_empties_nothing(tmp_path: Path) -> None:
    file, folder = tmp_path / "predictions.jsonl", tmp_path / "out"
    file.write_text("mine")
    folder.mkdir()
    os.link(file, folder / ".lock")
    with held(str(folder)):
        assert file.read_text() == "mine"


def test_a_comparison_is_not_written_over_the_files_of_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [write_run(tmp_path / name, [1, 0], question="Comparison of") for name in ("a", "b")]
    verdicts = tmp_path / "a" / "verdicts.jsonl"
    before = verdicts.read_bytes()
    os.link(verdicts, tmp_path / "page.html")
    for output in (verdicts, tmp_path / "page.html"):
        assert compare([*runs, f"output={output}"]) == 1
        assert "is no page of a comparison" in capsys.readouterr().err
        assert verdicts.read_bytes() == before


@pytest.mark.parametrize(
    ("command", "settings"),
    [(scaling, []), (throughput, ["against=trl"]), (reward_benchmark, ["root=missing", "measures=[memory]"])],
)
def test_measurements_refuse_a_file_that_is_there_before_they_start(
    command: Callable[[list[str]], int], settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken.json").write_text("mine")
    assert command([*settings, f"output={tmp_path / 'taken.json'}"]) == 1
    assert "holds earlier results: choose another output" in capsys.readouterr().err
    assert (tmp_path / "taken.json").read_text() == "mine"
