"""wandb's real client in offline mode: rows are written under the run folder, and a resumed folder keeps its run."""

import time
from pathlib import Path

import pytest

from conf.schema.stages import WandbConfig
from records.sinks.wandb_sink import WandbUnavailable, open_wandb

pytestmark = pytest.mark.integration


def test_offline_rows_stay_in_the_run_folder_under_one_id(tmp_path: Path) -> None:
    for step in (1, 2):
        sink = open_wandb(WandbConfig(mode="offline"), folder=tmp_path, name="r", run_config={"seed": 0})
        assert sink is not None
        sink.write({"step": step, "version": step, "reward/total/mean": 0.5, "policy/loss": None})
        sink.close()
    files = list((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
    ids = {file.stem.removeprefix("run-") for file in files}
    assert ids == {(tmp_path / ".wandb_id").read_text()}
    # wandb's own process writes the last rows after finish() has returned.
    deadline = time.monotonic() + 30
    while not all(b"reward/total/mean" in file.read_bytes() for file in files):
        assert time.monotonic() < deadline, "a row never reached its file"
        time.sleep(0.1)


def test_online_without_a_login_is_one_clear_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(WandbUnavailable, match="set logging.wandb.mode=offline or disabled"):
        open_wandb(WandbConfig(mode="online"), folder=tmp_path, name="r", run_config={})
