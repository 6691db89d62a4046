"""Counting what a fault cost, and following a run from outside."""

import contextlib
import json
import mmap
import os
import sys
from pathlib import Path

import psutil
import pytest

from conf.errors import ConfigError
from conf.load import load
from conf.schema.chaos import ChaosConfig, FaultName
from measure.chaos import segment
from measure.chaos.faults import FAULTS, IN_PASSING
from measure.chaos.kills import beyond_its_restart, within
from measure.chaos.ledgers import account, parse, read_ledger
from measure.chaos.scene import Noticed, NotPossible, Scene
from measure.chaos.soak import Soaked, ends, noise
from measure.chaos.table import markdown, write_summary
from measure.chaos.trial import Lab, Reference, Row, try_fault, usual_step
from measure.chaos.watched import TrainerRun, TrialFailed


def ledger(*steps: dict) -> list:
    return parse([{"step": number, "version": number, **step} for number, step in enumerate(steps, start=1)])


WHOLE = ledger(
    {"trained": [["0.0", "a", 0], ["1.0", "b", 0]], "dropped": []},
    {"trained": [["2.0", "c", 1]], "dropped": [["3.0", "d", "no variance"]]},
)


def counts(*steps: dict, until: int = 2) -> tuple[int, int]:
    found = account(WHOLE, ledger(*steps), steps=until)
    return found.groups_lost, found.groups_trained_twice


def test_the_same_groups_in_another_order_lose_nothing():
    first = {"trained": [["1.0", "b", 0]], "dropped": [["0.0", "a", "no variance"]]}
    assert counts(first, {"trained": [["3.0", "d", 1], ["2.0", "c", 1]], "dropped": []}) == (0, 0)


def test_a_stale_group_that_is_made_again_is_neither_lost_nor_repeated():
    first = {"trained": [["0.0", "a", 0], ["1.1", "b", 0]], "dropped": [["1.0", "b", "stale"]]}
    assert counts(first, {"trained": [["2.0", "c", 1], ["3.0", "d", 1]], "dropped": []}) == (0, 0)


def test_missing_foreign_and_unscorable_groups_are_lost():
    assert counts({"trained": [["0.0", "a", 0]], "dropped": []}) == (3, 0)
    assert counts({"trained": [["0.0", "a", 0], ["1.0", "other", 0]], "dropped": []}, until=1) == (1, 0)
    first = {"trained": [["0.0", "a", 0]], "dropped": [["1.0", "b", "unscorable"]]}
    assert counts(first, until=1) == (1, 0)
    # What the task or the policy caused is no loss.
    own = {"trained": [["0.0", "a", 0]], "dropped": [["1.0", "b", "unscorable_data"]]}
    assert counts(own, until=1) == (0, 0)


def test_a_position_trained_on_in_two_steps_is_counted():
    first = {"trained": [["0.0", "a", 0], ["1.0", "b", 0]], "dropped": []}
    second = {"trained": [["2.0", "c", 1], ["3.0", "d", 1], ["1.1", "b", 1]], "dropped": []}
    assert counts(first, second) == (0, 1)
    assert counts(first, second, until=1) == (0, 0)


def test_no_ledger_is_nothing_consumed(tmp_path):
    assert read_ledger(tmp_path / "ledger.jsonl") == []


def test_every_fault_has_a_way_to_be_made():
    assert set(FAULTS) == set(FaultName.__args__)
    assert set(IN_PASSING) <= set(FAULTS)


def test_a_suite_without_room_for_recovery_is_refused():
    with pytest.raises(ConfigError, match="at least two must follow"):
        load(ChaosConfig, "chaos", ["output=x", "steps=4"])
    assert load(ChaosConfig, "chaos", ["output=x"]).at_step == 3


ACTING = """
import json, sys, time
folder, steps, pause = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
for step in range(1, steps + 1):
    with open(folder + "/ledger.jsonl", "a") as file:
        file.write(json.dumps({"step": step, "trained": [[f"{step}.0", f"t{step}", 0]], "dropped": []}) + "\\n")
    print("did step", step, flush=True)
    time.sleep(pause)
sys.exit(5)
"""


def acting(tmp_path: Path, limit_s: float = 20.0, steps: int = 3, pause_s: float = 0.05) -> TrainerRun:
    command = [sys.executable, "-c", ACTING, str(tmp_path), str(steps), str(pause_s)]
    return TrainerRun(command, folder=tmp_path, log=tmp_path / "log", limit_s=limit_s)


def test_a_run_is_followed_by_its_ledger_and_its_log(tmp_path):
    with acting(tmp_path) as run:
        assert run.step == 0
        run.start()
        run.until(lambda: run.step >= 2, "step 2")
        since = run.log_size()
        run.until(lambda: run.said("did step 3"), "the last step")
        assert run.wait() == 5
        assert not run.said("did step 1", since=since)
        assert run.left_behind() == []


def test_a_run_that_ends_or_stands_still_fails_the_trial(tmp_path):
    with acting(tmp_path) as run:
        run.start()
        with pytest.raises(TrialFailed, match="exit code 5 before step 9"):
            run.until(lambda: run.step >= 9, "step 9")
    with acting(tmp_path, limit_s=0.01) as run:
        run.start()
        with pytest.raises(TrialFailed, match=r"step 9 was not seen within 0\.01 s"):
            run.until(lambda: run.step >= 9, "step 9")


def test_leaving_a_run_ends_its_process(tmp_path):
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    with TrainerRun(command, folder=tmp_path, log=tmp_path / "log", limit_s=5) as run:
        run.start()
        process = run.process
        assert process.is_running()
    assert not process.is_running()


def test_a_half_written_ledger_row_is_not_read(tmp_path):
    run = acting(tmp_path)
    (tmp_path / "ledger.jsonl").write_text('{"step": 4}\n{"st')
    assert run.step == 4


def test_half_of_a_weight_segment_is_damaged_through_proc(monkeypatch):
    fd = os.memfd_create("quorum-weights")
    try:
        os.write(fd, b"\1" * 4096)
        assert segment.damage(os.getpid()) == 2048
        with mmap.mmap(fd, 4096) as view:
            assert view[:] == b"\1" * 2048 + b"\0" * 2048
    finally:
        os.close(fd)
    with pytest.raises(NotPossible, match="no weight segment"):
        segment.damage(os.getpid())


TRAINER = """
import json, os, signal, sys, time
settings = dict(each.split("=", 1) for each in sys.argv[1:])
folder = os.path.join(settings["run.dir"], settings["run.name"])
os.makedirs(folder, exist_ok=True)
ledger = os.path.join(folder, "ledger.jsonl")
done = len(open(ledger).readlines()) if os.path.exists(ledger) else 0
assert (done > 0) == (settings.get("resume") == "auto")
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
for step in range(done + 1, int(settings["pipeline.steps"]) + 1):
    time.sleep(float(settings.get("pause", 0.05)) if done == 0 else 0.05)
    position = step - 1 - (step > int(settings.get("repeats.at", 99)))
    with open(ledger, "a") as file:
        file.write(json.dumps({"step": step, "trained": [[f"{position}.0", f"t{position}", 0]], "dropped": []}) + "\\n")
"""


def tried(tmp_path: Path, fault: FaultName, *settings: str) -> Row:
    script = tmp_path / "trainer.py"
    script.write_text(TRAINER)
    config = ChaosConfig(output=str(tmp_path), steps=8, settings=settings)
    whole = [{"step": n + 1, "trained": [[f"{n}.0", f"t{n}", 0]], "dropped": []} for n in range(8)]
    reference = Reference(consumed=parse(whole), step_s=0.05)
    return try_fault(fault, Lab(config, trainer=(sys.executable, str(script))), reference)


@pytest.mark.parametrize("fault", ["driver_dies", "sigterm"])
def test_a_run_that_ends_from_its_fault_is_resumed(tmp_path, fault):
    # On a loaded machine the fault must find the run alive.
    found = tried(tmp_path, fault, "pause=0.4")
    assert found.status == "passed"
    assert (found.steps_done, found.groups_lost, found.groups_trained_twice) == (8, 0, 0)
    assert found.injected_at_step >= 3
    assert found.detected_s < found.recovered_s


def test_a_run_that_repeats_and_loses_a_group_fails(tmp_path):
    found = tried(tmp_path, "sigterm", "repeats.at=6")
    assert found.status == "failed: 1 groups were lost, 1 trained twice"


def made(monkeypatch, **scene: object) -> None:
    """Makes a fault of the test's own under a known name."""
    values: dict = {"inject": lambda run: lambda: True, **scene}
    monkeypatch.setitem(FAULTS, "learner_dies", lambda folder: contextlib.nullcontext(Scene(**values)))


def test_recovery_is_a_step_after_the_run_has_noticed(tmp_path, monkeypatch):
    made(monkeypatch, inject=lambda run: lambda: run.step >= 5)
    found = tried(tmp_path, "learner_dies")
    assert found.status == "passed"
    # Noticed at step 5: that step was done before.
    assert found.recovered_s - found.detected_s > 0.03


def test_a_fault_that_nobody_notices_fails_and_counts_what_is_missing(tmp_path, monkeypatch):
    made(monkeypatch, inject=lambda run: lambda: False)
    assert "ended with exit code 0 before it recovered" in tried(tmp_path, "learner_dies").status

    def killed(run: TrainerRun) -> Noticed:
        run.process.kill()
        return lambda: False

    made(monkeypatch, inject=killed)
    found = tried(tmp_path, "learner_dies")
    assert "ended with exit code -9 before it recovered" in found.status
    assert found.groups_lost == 8 - found.steps_done > 0


def test_a_recovery_that_takes_longer_than_is_claimed_fails(tmp_path, monkeypatch):
    made(monkeypatch, allowed_s=lambda run: 60.0)
    assert tried(tmp_path, "learner_dies").status == "passed"
    made(monkeypatch, allowed_s=lambda run: -1.0)
    status = tried(tmp_path, "learner_dies").status
    assert status.startswith("failed: it cost ")
    assert status.endswith("more than -1.0 s")


def test_a_fault_that_cannot_be_made_is_a_row_too(tmp_path, monkeypatch):
    def gone(run: TrainerRun) -> None:
        raise psutil.NoSuchProcess(1)

    made(monkeypatch, inject=gone)
    assert tried(tmp_path, "learner_dies").status.startswith("failed: process no longer exists")


def test_a_worker_may_take_its_restart_and_no_more(tmp_path):
    run = acting(tmp_path)
    run.log.write_text("rollout worker 0 is back after 12.5 s\nstep 4\nrollout worker 1 is back after 31.0 s\n")
    assert beyond_its_restart(10.0)(run) == 41.0
    assert within(2.0)(run) == 2.0


def test_a_run_that_goes_on_is_waited_for_however_long_it_takes(tmp_path):
    with acting(tmp_path, limit_s=1.5, steps=8, pause_s=0.4) as run:
        run.start()
        assert run.wait() == 5
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    with TrainerRun(command, folder=tmp_path / "still", log=tmp_path / "log", limit_s=0.3) as run:
        run.start()
        with pytest.raises(TrialFailed, match="stood still for 0.3 s after step 0"):
            run.wait()


def row(**changes: object) -> Row:
    values: dict = {
        "fault": "learner_dies", "injected_at_step": 3, "detected_s": 0.25, "recovered_s": None,
        "steps_done": 8, "steps_asked": 8, "groups_lost": 0, "groups_trained_twice": 0, "status": "passed",
    }  # fmt: skip
    return Row(**(values | changes))


def test_the_summary_holds_the_promised_keys(tmp_path):
    rows = [row(), row(status="not run: no permission to mount"), row(status="failed: exit code 1")]
    assert [each.failed for each in rows] == [False, False, True]
    write_summary(tmp_path / "summary.json", rows, settings=[], usual_step_s=2.0)
    told = json.loads((tmp_path / "summary.json").read_text())
    promised = (
        "fault injected_at_step detected_s recovered_s steps_done steps_asked groups_lost groups_trained_twice status"
    )
    assert list(told["faults"][0]) == promised.split()
    assert told["usual_step_s"] == 2.0
    assert told["machine"]["cpus"] >= 1
    assert "| learner_dies | 3 | 0.2 | - | 8/8 | 0 | 0 | passed |" in markdown(rows)


def test_the_usual_step_is_the_median_of_the_metrics(tmp_path):
    assert usual_step(tmp_path) == 0.0
    rows = [
        {"step": 1, "perf/step_s": 9.0},
        {"step": 1},
        {"step": 2, "perf/step_s": 1.0},
        {"step": 3, "perf/step_s": 2.0},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    assert usual_step(tmp_path) == 2.0


def soaked(**changes: object) -> Soaked:
    values: dict = {
        "steps_done": 300, "steps_asked": 300, "faults": [], "groups_lost": 0, "groups_trained_twice": 0,
        "memory_first_gib": 4.0, "memory_last_gib": 4.39, "accuracy": 0.70, "accuracy_undisturbed": 0.72,
        "accuracy_allowed": 0.03,
    }  # fmt: skip
    return Soaked(**(values | changes))


def test_a_soak_is_judged_by_steps_counts_memory_and_accuracy():
    assert soaked().problems() == []
    assert soaked(memory_last_gib=4.5).problems() == ["memory grew from 4.00 to 4.50 GiB"]
    assert soaked(accuracy=0.60).problems() == ["accuracy 0.600, undisturbed 0.720"]
    assert len(soaked(steps_done=299, groups_lost=1).problems()) == 2
    assert soaked(accuracy=0.0, accuracy_undisturbed=0.0).problems() == [
        "the undisturbed run was never right, so that accuracy shows nothing"
    ]
    assert ends([1.0, 2.0, 3.0, 50.0, 7.0, 8.0, 9.0, 0.0, 9.5]) == (2.0, 9.0)
    assert noise([0.0, 2.0], [1.0, 1.0]) == pytest.approx(3.0)
