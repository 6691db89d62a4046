"""Rows, rewinding, refusing, locking and summaries of a run folder, on real files."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from records.files import Json, RecordsDamaged, RecordsNotWritten, RowWriter, read_rows, rewind, write_atomically
from records.run_folder import LedgerRow, RunFolder, RunFolderError, read_config, read_summary
from records.summary import RunSummary, Status, engine_versions, summarise
from rewards.carriers import RewardResult, SqlTask
from rollout.carriers import Completion, Group, Prompt, ScoredGroup


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def scored_group(text: str) -> ScoredGroup:
    task = SqlTask(
        id="demo-7", db_id="shop", question="How many?", evidence="e", gold_sqls=("SELECT 1",), databases=("x.sqlite",)
    )
    completion = Completion(
        text=text, token_ids=(1, 2), logprobs=(-1.0, -2.0), version_spans=((0, 4),), finish_reason="stop"
    )
    result = RewardResult(
        status="scored",
        total=0.5,
        components={"format": 1.0, "memory": None},
        error="no such table",
        error_kind="syntax",
    )
    prompt = Prompt(task=task, text="Question: How many?", token_ids=(1, 2, 3))
    return ScoredGroup(group=Group(id="0-7", prompt=prompt, completions=(completion,)), results=(result,))


def write_steps(folder: RunFolder, first: int, last: int) -> None:
    for step in range(first, last + 1):
        folder.write({"step": step, "version": step, "reward/total/mean": step / 10})
        folder.write_ledger(
            LedgerRow(
                step=step,
                version=step,
                trained=((f"0-{step}", f"task-{step}", step - 1),),
                dropped=((f"0-{step}b", "task-x", "zero_variance"),),
            )
        )
        folder.write_samples([scored_group(f"step {step}")], step=step, version=step)


def finish(folder: RunFolder, status: Status = "finished") -> Path:
    made = {"wall_s": 10.0, "n": 30, "selection": "value_aware", "seed": 0, "versions": {}}
    return folder.finish(summarise(folder.metrics(), status=status, **made))


def test_ledger_and_sample_rows_have_the_published_shape(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "r") as folder:
        write_steps(folder, 1, 1)
    assert lines(tmp_path / "r" / "ledger.jsonl") == [
        {"step": 1, "version": 1, "trained": [["0-1", "task-1", 0]], "dropped": [["0-1b", "task-x", "zero_variance"]]}
    ]
    (sample,) = lines(tmp_path / "r" / "samples.jsonl")
    assert sample["task_id"] == "demo-7"
    assert sample["gold_sqls"] == ["SELECT 1"]
    assert sample["completions"][0]["components"] == {"format": 1.0, "memory": None}
    assert sample["completions"][0]["error_kind"] == "syntax"
    assert sample["completions"][0]["tokens"] == 2


def test_text_that_utf8_cannot_hold_still_makes_a_row(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as folder:
        folder.write_samples([scored_group("bad \ud800 text \u2028\n naïve 日本")], step=1, version=1)
    (row,) = read_rows(tmp_path / "samples.jsonl")
    assert row["completions"][0]["text"] == "bad \ud800 text \u2028\n naïve 日本"


def test_rows_reach_the_file_at_once_and_nan_never_does(tmp_path: Path) -> None:
    writer = RowWriter(tmp_path / "rows")
    writer.append({"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        writer.append({"a": float("nan")})
    assert lines(tmp_path / "rows") == [{"a": 1}]


def test_a_torn_last_line_is_left_out_and_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    torn = '{"a":2,"text":"' + "x" * 200_000
    path.write_text('{"a":1}\n' + torn)
    assert list(read_rows(path)) == [{"a": 1}]
    writer = RowWriter(path)
    writer.append({"a": 3})
    assert lines(path) == [{"a": 1}, {"a": 3}]
    path.write_text(torn)
    RowWriter(path).append({"a": 4})
    assert lines(path) == [{"a": 4}]


@pytest.mark.parametrize(("middle", "reason"), [("{oops", "is no JSON:"), ("[1]", "is no JSON object")])
def test_a_damaged_row_is_named_by_file_and_line(tmp_path: Path, middle: str, reason: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"a":1}}\n{middle}\n{{"a":2}}\n')
    with pytest.raises(RecordsDamaged, match=f"rows.jsonl:2 {reason}"):
        list(read_rows(path))


def test_a_failed_rewind_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    before = '{"step":1}\n{"stop":2}\n'
    path.write_text(before)
    with pytest.raises(KeyError):
        rewind(path, lambda row: row["step"] < 2)
    assert path.read_text() == before
    assert [p.name for p in tmp_path.iterdir()] == ["rows.jsonl"]


def test_resuming_counts_every_step_once(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as folder:
        folder.write({"step": 0, "version": 0, "eval/greedy_ex": 0.25})
        write_steps(folder, 1, 5)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step":6,"ver')
    with RunFolder(tmp_path, resume=True) as folder:
        assert folder.rewind(3) == {"metrics.jsonl": 2, "ledger.jsonl": 2, "samples.jsonl": 2}
        write_steps(folder, 4, 6)
    for name in ("metrics.jsonl", "ledger.jsonl", "samples.jsonl"):
        assert [row["step"] for row in lines(tmp_path / name) if row["step"]] == [1, 2, 3, 4, 5, 6]
    assert lines(tmp_path / "metrics.jsonl")[0]["eval/greedy_ex"] == 0.25


def test_resuming_without_a_checkpoint_starts_over(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as folder:
        folder.write({"step": 0, "version": 0, "eval/greedy_ex": 0.25})
        write_steps(folder, 1, 2)
    with RunFolder(tmp_path, resume=True) as folder:
        folder.rewind(None)
        assert folder.metrics() == []


def test_a_ledger_that_lacks_a_checkpointed_step_stops_the_resume(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as folder:
        write_steps(folder, 1, 2)
        write_steps(folder, 4, 4)
    with RunFolder(tmp_path, resume=True) as folder, pytest.raises(RecordsDamaged, match="steps 1 to 4"):
        folder.rewind(4)


def test_a_finished_run_is_never_overwritten(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as folder:
        write_steps(folder, 1, 1)
        finish(folder)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    with pytest.raises(RunFolderError, match="finished run, which is never overwritten: choose another run.name"):
        RunFolder(tmp_path)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before
    with RunFolder(tmp_path, resume=True):
        pass


@pytest.mark.parametrize("failed", [True, False])
def test_an_unfinished_run_asks_for_resume(tmp_path: Path, failed: bool) -> None:
    with RunFolder(tmp_path) as folder:
        write_steps(folder, 1, 1)
        if failed:
            finish(folder, "failed")
    with pytest.raises(RunFolderError, match="resume=auto"):
        RunFolder(tmp_path)


def test_a_run_that_failed_before_its_first_row_may_be_started_again(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as folder:
        finish(folder, "failed")
    with RunFolder(tmp_path) as folder:
        assert read_summary(tmp_path) is None
        write_steps(folder, 1, 1)


def test_a_full_disk_is_one_sentence() -> None:
    with pytest.raises(RecordsNotWritten, match="/dev/full cannot be written: No space left on device"):
        RowWriter(Path("/dev/full")).append({"step": 1})


def test_two_drivers_cannot_share_a_folder(tmp_path: Path) -> None:
    code = f"from pathlib import Path; from records.run_folder import RunFolder; RunFolder(Path({str(tmp_path)!r}))"
    root = Path(__file__).parents[2]
    with RunFolder(tmp_path):
        second = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, timeout=60)
    assert "is in use by another training process" in second.stderr
    third = subprocess.run([sys.executable, "-c", code.replace("))", "), resume=True)")], cwd=root, timeout=60)
    assert third.returncode == 0


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="cannot be written: Not a directory"):
        RunFolder(tmp_path / "file" / "run")


def test_the_summary_adds_up_the_rows_of_all_processes(tmp_path: Path) -> None:
    rows: list[Json] = [
        {"step": 0, "version": 0, "eval/greedy_ex": 0.4, "eval/mean_at_n": 0.3, "perf/evaluate_s": 5.0},
        {
            "step": 1,
            "version": 1,
            "reward/total/mean": 0.5,
            "perf/generate_s": 10.0,
            "perf/completions": 64.0,
            "perf/tokens_trained": 1000.0,
            "reward/unscorable": 1.0,
            "async/dropped_stale": 1.0,
            "perf/rss_gib": 3.0,
        },
        {"step": 2, "version": 2, "reward/total/mean": None, "perf/generate_s": 20.0, "perf/completions": 64.0},
        {
            "step": 3,
            "version": 3,
            "reward/total/mean": 0.75,
            "async/dropped_zero_variance": 2.0,
            "perf/rss_gib": 2.0,
            "perf/checkpoint_s": 3.0,
        },
        {"step": 3, "version": 3, "eval/greedy_ex": 0.6, "eval/vote_ex": 0.7, "eval/recall_at_n": 0.9},
    ]
    known = {"status": "finished", "wall_s": 40.0, "n": 30, "seed": 1, "versions": {"ray": "2"}}
    assert summarise(rows, selection="majority", **known).vav_ex_after is None
    summary = summarise(rows, selection="value_aware", **known)
    assert summary.as_json() == {
        "status": "finished",
        "error": None,
        "steps": 3,
        "wall_s": 40.0,
        "seconds_by_stage": {
            "check": 0.0,
            "warmup": 0.0,
            "render": 0.0,
            "start": 0.0,
            "generate": 30.0,
            "score": 0.0,
            "train": 0.0,
            "sync": 0.0,
            "evaluate": 5.0,
            "checkpoint": 3.0,
            "other": 2.0,
        },
        "completions": 128,
        "completions_per_s": 4.0,
        "tokens_trained": 1000,
        "greedy_ex_before": 0.4,
        "greedy_ex_after": 0.6,
        "mean_at_n_before": 0.3,
        "mean_at_n_after": None,
        "vav_ex_after": 0.7,
        "recall_at_n_after": 0.9,
        "n": 30,
        "reward_first": 0.5,
        "reward_last": 0.75,
        "unscorable": 1,
        "groups_dropped": 3,
        "peak_rss_gib": 3.0,
        "seed": 1,
        "versions": {"ray": "2"},
    }


def test_the_stages_of_a_summary_are_the_whole_wall_time_and_its_pace_is_that_of_the_steps() -> None:
    """A run of 359 s, of which 107 s went before the first step."""
    rows: list[Json] = [
        {
            "step": 0,
            "perf/check_s": 3.0,
            "perf/warmup_s": 80.0,
            "perf/render_s": 1.0,
            "perf/start_s": 21.0,
            "perf/evaluate_s": 12.0,
        },
        {"step": 1, "perf/generate_s": 60.0, "perf/train_s": 50.0, "perf/step_s": 112.0, "perf/completions": 512.0},
        {"step": 2, "perf/generate_s": 60.0, "perf/train_s": 40.0, "perf/step_s": 88.0, "perf/completions": 288.0},
        {"step": 2, "perf/checkpoint_s": 1.0},
        # Of a second process, which went on from step 2.
        {"step": 3, "perf/start_s": 4.0, "perf/generate_s": 1.0, "perf/step_s": 1.0, "perf/completions": 4.0},
    ]
    known = {"wall_s": 359.0, "n": 1, "selection": "first", "seed": 0, "versions": {}}
    summary = summarise(rows, status="failed", pending={"start": 5.0}, **known)  # type: ignore[arg-type]
    stages = summary.seconds_by_stage
    assert {name: stages[name] for name in ("check", "warmup", "render", "start")} == {
        "check": 3.0,
        "warmup": 80.0,
        "render": 1.0,
        "start": 30.0,
    }
    assert stages["other"] == pytest.approx(359 - 338)
    assert sum(stages.values()) == pytest.approx(359)
    assert summary.completions_per_s == pytest.approx((512 + 288 + 4) / (112 + 88 + 1))


def test_every_field_of_the_summary_is_documented_in_its_order() -> None:
    text = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
    table = text.partition("## summary.json")[2].partition("\n## ")[0]
    listed = [name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)]
    assert listed == [field.name for field in dataclasses.fields(RunSummary)]


def test_the_summary_of_a_run_that_never_stepped(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as folder:
        finish(folder, "failed")
    summary = read_summary(tmp_path)
    assert summary is not None
    assert summary["steps"] == 0
    assert summary["greedy_ex_after"] is None
    write_atomically(tmp_path / "summary.json", "{")
    with pytest.raises(RecordsDamaged, match="summary.json"):
        read_summary(tmp_path)


def test_engine_versions_name_what_is_installed() -> None:
    versions = engine_versions(["pydantic", "no-such-distribution"])
    assert set(versions) == {"python", "sqlite", "pydantic"}


@pytest.mark.parametrize("name", [".lock", "metrics.jsonl", "summary.json"])
def test_a_folder_that_cannot_be_written_is_one_sentence_and_stays_free(tmp_path: Path, name: str) -> None:
    """A directory in a file's place refuses root too, which file modes do not."""
    (tmp_path / "run" / name).mkdir(parents=True)
    for _ in range(2):
        with pytest.raises((RunFolderError, RecordsDamaged), match="Is a directory"):
            RunFolder(tmp_path / "run")
    (tmp_path / "run" / name).rmdir()
    RunFolder(tmp_path / "run").close()


def test_a_configuration_that_cannot_be_kept_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "run" / "config.yaml").mkdir(parents=True)
    with (
        RunFolder(tmp_path / "run") as folder,
        pytest.raises(RunFolderError, match="cannot be written: Is a directory"),
    ):
        folder.write_config("seed: 0\n")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"seed: [1,", "holds no config.yaml that can be read: while parsing"),
        (b"seed: 1\nseed: 2\n", "found duplicate key seed"),
        (b"\xff\xfe\x00", "holds no config.yaml that can be read"),
        (b"- 1\n", "holds no settings"),
        (None, "No such file or directory"),
    ],
)
def test_a_broken_configuration_is_one_sentence(tmp_path: Path, content: bytes | None, reason: str) -> None:
    if content is not None:
        (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(RecordsDamaged, match=reason):
        read_config(tmp_path)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[" * 200_000, b"{"])
def test_a_broken_summary_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "summary.json").write_bytes(content)
    with pytest.raises(RecordsDamaged, match="summary.json is no JSON that can be read"):
        read_summary(tmp_path)


@pytest.mark.parametrize("change", [{"steps": "ten"}, {"versions": None}, {"wall_s": True}, {"status": "asleep"}])
def test_a_summary_of_wrong_types_is_one_sentence(tmp_path: Path, change: dict[str, object]) -> None:
    with RunFolder(tmp_path) as folder:
        path = finish(folder)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(
        RecordsDamaged, match=f"summary.json is no summary of a run: {next(iter(change))}: Input should"
    ):
        read_summary(tmp_path)
    path.write_text("{}")
    with pytest.raises(RecordsDamaged, match="no summary of a run: status: Field required"):
        read_summary(tmp_path)


def test_a_folder_that_is_gone_on_from_is_left_as_it_is_until_it_is_cut_back(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as folder:
        write_steps(folder, 1, 2)
        finish(folder, "stopped")
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 3')
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}
    with RunFolder(tmp_path, resume=True):
        pass
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()} == before
