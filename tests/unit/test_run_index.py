"""The run index: a row a run, what is compared, and what gc may and may not delete."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from conf.errors import ConfigError
from conf.load import load
from conf.schema.root import TrainConfig
from records.index.__main__ import main
from records.index.collect import best_checkpoint, collect, garbage
from records.index.identity import CODE_VERSION, code_version, data_digests, parent_checkpoint
from records.index.index import IndexUnusable, RunIndex, RunRow
from records.index.register import Registration
from records.index.show import comparison, full, listing
from records.run_folder import RunFolder
from records.summary import summarise
from rewards.carriers import SqlTask
from rollout.tasks import TaskSet

ROW = RunRow(
    id="a1",
    name="first",
    folder="/nowhere/first",
    config={"seed": 0, "learner": {"learning_rate": 1e-3}},
    code="c0ffee",
    data={"train": {"tasks": 2, "sha256": "d1"}},
    parent=None,
    job=None,
    outcome="finished",
    error=None,
    steps=40,
    scores={"greedy_ex_after": 0.8375},
    started="2026-01-01T00:00:00+00:00",
    ended=None,
    wall_s=12.0,
)


def row(**changes: object) -> RunRow:
    return dataclasses.replace(ROW, **changes)  # type: ignore[arg-type]


def checkpoint(run: Path, step: int) -> Path:
    folder = run / "checkpoints" / f"step-{step:06d}"
    folder.mkdir(parents=True)
    (folder / "weights").write_bytes(b"x" * 100)
    (folder / "MANIFEST.json").write_text("{}")
    return folder


def test_a_row_comes_back_as_it_was_put(tmp_path):
    index = RunIndex(tmp_path / "deep" / "index.db")
    assert index.rows() == []
    index.put(ROW)
    index.put(row(steps=80))
    assert index.rows() == [row(steps=80)]


def test_a_run_is_found_by_id_folder_and_newest_name(tmp_path):
    index = RunIndex(tmp_path / "index.db")
    index.put(row(id="a1"))
    index.put(row(id="b2", started="2026-02-01T00:00:00+00:00", folder=str(tmp_path)))
    assert index.find("a1").id == "a1"
    assert index.find("first").id == "b2"
    assert index.find(str(tmp_path)).id == "b2"
    with pytest.raises(IndexUnusable, match="lists no run second"):
        index.find("second")


def test_a_file_that_is_no_database_is_one_sentence(tmp_path):
    file = tmp_path / "index.db"
    file.write_text("this is text, not a database file, and long enough to be read as one" * 20)
    with pytest.raises(IndexUnusable, match="cannot be used: file is not a database"):
        RunIndex(file).rows()


def test_a_database_server_is_refused_by_the_schema():
    with pytest.raises(ConfigError, match=r"run\.index: the run index is a SQLite file"):
        load(TrainConfig, "train", ["experiment=quickstart", "run.index=postgresql://host/runs"])


def test_the_trainer_registers_start_data_and_end_and_a_resumed_run_keeps_its_row(tmp_path, monkeypatch):
    monkeypatch.setenv(CODE_VERSION, "abc123")
    config = load(TrainConfig, "train", ["experiment=quickstart", f"run.dir={tmp_path}", "run.name=one"])
    index = RunIndex(tmp_path / "index.db")
    tasks = TaskSet(
        warmup=(), train=(SqlTask(id="t", db_id="d", question="q", gold_sqls=("x",), databases=()),), heldout=()
    )
    with RunFolder(tmp_path / "one") as folder:
        entry = Registration(config, folder.path)
        assert "running" in listing(index.rows())
        entry.add_data(tasks)
        rows = [{"step": 3, "version": 3, "eval/greedy_ex": 0.5, "perf/completions": 8.0}]
        entry.end(
            summarise(
                rows,
                status="stopped",
                error="interrupted",
                wall_s=5.0,
                n=30,
                selection="value_aware",
                seed=0,
                versions={},
            )
        )
    (kept,) = index.rows()
    assert (kept.outcome, kept.steps, kept.error, kept.code) == ("stopped", 3, "interrupted", "abc123")
    assert kept.scores["greedy_ex_after"] == 0.5
    assert kept.data["train"]["tasks"] == 1
    with RunFolder(tmp_path / "one", resume=True) as folder:
        Registration(config, folder.path)
    (again,) = index.rows()
    assert (again.id, again.started, again.outcome) == (kept.id, kept.started, "running")
    assert "no longer running" in listing([again])


def test_digests_follow_questions_golds_and_what_the_databases_hold(tmp_path):
    database = tmp_path / "d.sqlite"
    database.write_bytes(b"12")

    def digest(**changes: object) -> str:
        fields = {"id": "t", "db_id": "d", "question": "q", "gold_sqls": ("SELECT 1",), "databases": (str(database),)}
        task = SqlTask(**fields | changes)  # type: ignore[arg-type]
        return data_digests(TaskSet(warmup=(), train=(task,), heldout=()))["train"]["sha256"]

    before = digest()
    assert digest() == before
    assert digest(question="p") != before
    assert digest(gold_sqls=("SELECT 2",)) != before
    database.write_bytes(b"13")
    assert digest() != before


def test_the_code_version_is_the_commit_and_says_when_files_differ(tmp_path, monkeypatch):
    monkeypatch.delenv(CODE_VERSION, raising=False)
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e"]
    (tmp_path / "f").write_text("1")
    for command in (["init", "-q"], ["add", "f"], ["commit", "-qm", "m"]):
        subprocess.run([*git, *command], check=True)
    commit = code_version(tmp_path)
    assert len(commit) == 12
    (tmp_path / "f").write_text("2")
    assert code_version(tmp_path) == f"{commit}+changes"


def test_a_policy_inside_a_checkpoint_names_its_parent(tmp_path):
    folder = checkpoint(tmp_path, 20)
    assert parent_checkpoint(folder / "policy") == str(folder)
    assert parent_checkpoint(tmp_path / "model") is None


def test_gc_keeps_newest_best_and_parents_and_deletes_the_rest(tmp_path):
    run = tmp_path / "run"
    folders = {step: checkpoint(run, step) for step in (10, 20, 30, 40, 50)}
    half = run / "checkpoints" / ".step-000060.writing"
    half.mkdir()
    scores = {10: 0.2, 20: 0.9, 30: 0.3, 40: 0.5}
    (run / "metrics.jsonl").write_text(
        "".join(json.dumps({"step": step, "eval/greedy_ex": score}) + "\n" for step, score in scores.items())
    )
    rows = [row(folder=str(run)), row(id="b2", folder=str(tmp_path / "gone"), parent=str(folders[30]))]
    index = RunIndex(tmp_path / "index.db")
    for one in rows:
        index.put(one)
    assert best_checkpoint(run) == folders[20]
    found = garbage(index.rows())
    assert {folder for folder, _ in found.folders} == {folders[10], folders[40], half}
    assert [one.id for one in found.rows] == ["b2"]
    assert folders[10].is_dir()
    collect(found, index)
    assert {step for step, folder in folders.items() if folder.is_dir()} == {20, 30, 50}
    assert not half.exists()
    assert [one.id for one in index.rows()] == ["a1"]


def test_gc_leaves_a_run_alone_that_is_being_written(tmp_path):
    with RunFolder(tmp_path / "run") as folder:
        checkpoint(folder.path, 10)
        checkpoint(folder.path, 20)
        assert garbage([row(folder=str(folder.path))]).folders == ()
    assert len(garbage([row(folder=str(tmp_path / "run"))]).folders) == 1


def test_compare_shows_results_and_only_settings_that_differ():
    other = row(id="b2", name="second", config={"seed": 0, "learner": {"learning_rate": 1e-4}}, scores={})
    text = comparison([ROW, other])
    assert "learner.learning_rate  0.001" in text
    assert "0.8375" in text
    assert "seed" not in text
    assert "d1" in full(ROW)


def test_the_command_shows_what_gc_would_delete_and_deletes_only_when_told(tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    first = checkpoint(run, 10)
    checkpoint(run, 20)
    index = tmp_path / "index.db"
    RunIndex(index).put(row(folder=str(run)))

    def gc(*more: str) -> str:
        monkeypatch.setattr(sys, "argv", ["runs", "--index", str(index), "gc", *more])
        assert main() == 0
        return capsys.readouterr().out

    assert "nothing was deleted: repeat with --yes" in gc()
    assert first.is_dir()
    assert "deleted" in gc("--yes")
    assert not first.exists()
    assert gc() == "nothing to delete\n"
