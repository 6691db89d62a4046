"""The quick part of `make chaos`: real runs broken from outside. The whole suite takes half an hour."""

import json
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1500)]

FAULTS = ("executor_hangs", "reward_actor_dies", "weight_update_half_applied")


def test_runs_recover_without_losing_or_repeating_a_group(tmp_path, runs, finished):
    settings = json.dumps([*runs.shared, "rollout.workers=1"])
    answer = subprocess.run(
        [
            *(sys.executable, "-m", "measure.chaos", f"output={tmp_path}", f"faults=[{','.join(FAULTS)}]"),
            # What was consumed depends on seed and data alone, so any undisturbed run of these will do.
            *("steps=5", "at_step=3", "run_timeout_s=400", f"undisturbed={finished}", f"settings={settings}"),
        ],
        capture_output=True,
        text=True,
        timeout=1400,
    )
    assert answer.returncode == 0, answer.stdout[-3000:] + answer.stderr[-3000:]
    rows = json.loads((tmp_path / "summary.json").read_text())["faults"]
    assert [row["fault"] for row in rows] == list(FAULTS)
    for row in rows:
        assert row["status"] == "passed"
        assert row["steps_done"] == row["steps_asked"] == 5
        assert row["groups_lost"] == row["groups_trained_twice"] == 0
        assert 0 < row["detected_s"] <= row["recovered_s"]
    assert "going on from the checkpoint of step 2" in (tmp_path / "weight_update_half_applied.log").read_text()
