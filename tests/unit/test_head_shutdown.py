"""What is known of runs after the head that ran them was shut down."""

import json
from pathlib import Path

import pytest

from conf.load import load, to_yaml
from conf.paths import absolute
from conf.schema.root import TrainConfig
from operate.jobs.client import FOLDER, JobInfo, JobsClient, JobsUnavailable, JobUnknown
from operate.jobs.shutdown import CAUSE, end_jobs, record
from records.index.index import RunIndex
from records.index.lost import record_stopped
from records.index.register import Registration
from records.index.show import listing
from records.run_folder import RunFolder, read_summary
from records.states import FILE as STATES


def started(place: Path, name: str) -> tuple[Path, TrainConfig]:
    """A run folder as a driver that was killed in its third step leaves it."""
    config = absolute(load(TrainConfig, "train", ["experiment=quickstart", "run.dir=runs", f"run.name={name}"]), place)
    path = place / "runs" / name
    with RunFolder(path) as folder:
        folder.write_config(to_yaml(config))
        Registration(config, path)
        folder.write({"step": 2, "version": 2, "perf/elapsed_s": 30.0, "eval/greedy_ex": 0.25})
        (path / STATES).write_text(json.dumps({"learner": "training"}))
    return path, config


def job(identity: str, status: str, folder: Path | None = None) -> JobInfo:
    metadata = {} if folder is None else {FOLDER: str(folder)}
    return JobInfo(
        id=identity, status=status, entrypoint="e", message="", metadata=metadata, started_s=None, ended_s=None
    )


def test_a_run_that_was_killed_with_its_head_is_stopped_everywhere(tmp_path):
    path, _ = started(tmp_path, "one")
    index = RunIndex(tmp_path / "runs" / "index.db")
    assert index.rows()[0].outcome == "running"
    said: list[str] = []
    record([job("a", "RUNNING", path), job("b", "RUNNING", tmp_path / "nowhere"), job("c", "RUNNING")], said.append)
    assert said == [f"{path} did not end by itself: it is recorded as stopped"]
    (row,) = index.rows()
    assert (row.outcome, row.error, row.steps, row.wall_s) == ("stopped", CAUSE, 2, 30.0)
    assert row.scores["greedy_ex_after"] == 0.25
    assert row.ended is not None
    assert "stopped" in listing([row])
    summary = read_summary(path)
    assert summary is not None
    assert (summary["status"], summary["error"], summary["steps"]) == ("stopped", CAUSE, 2)
    assert not (path / STATES).exists()
    with RunFolder(path, resume=True):  # and it can go on
        pass


def test_a_run_that_ended_by_itself_or_is_at_work_is_left_alone(tmp_path):
    path, _ = started(tmp_path, "one")
    with RunFolder(path, resume=True):
        assert record_stopped(path, CAUSE) is False
    assert record_stopped(path, CAUSE) is True
    assert record_stopped(path, "another cause") is False
    assert record_stopped(tmp_path, CAUSE) is False
    summary = read_summary(path)
    assert summary is not None
    assert summary["error"] == CAUSE


class FakeClient(JobsClient):
    """Jobs that end some looks after they were asked to."""

    def __init__(self, looks: dict[str, int], *, silent: bool = False) -> None:
        super().__init__("http://127.0.0.1:9")
        self._looks = looks
        self._silent = silent
        self.asked: list[str] = []

    def jobs(self) -> list[JobInfo]:
        return [job("done", "SUCCEEDED"), *(job(name, "RUNNING") for name in self._looks)]

    def stop(self, identity: str) -> bool:
        if self._silent:
            raise JobsUnavailable("no Ray Jobs API answers")
        self.asked.append(identity)
        return True

    def job(self, identity: str) -> JobInfo:
        self._looks[identity] -= 1
        return job(identity, "STOPPED" if self._looks[identity] < 0 else "RUNNING")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("operate.jobs.shutdown.time.sleep", lambda seconds: None)


def test_jobs_are_asked_to_end_and_waited_for():
    client, said = FakeClient({"a": 3, "b": 0}), []
    assert [one.id for one in end_jobs(client, said.append, limit_s=60.0)] == ["a", "b"]
    assert client.asked == ["a", "b"]
    assert said == ["stopping a", "stopping b"]
    assert client._looks["a"] < 0


def test_a_job_that_does_not_end_and_a_silent_head_hold_nothing_up():
    assert [one.id for one in end_jobs(FakeClient({"a": 10**9}), lambda text: None, limit_s=0.05)] == ["a"]
    said: list[str] = []
    # They end with their head all the same, and somebody must write that down.
    assert [one.id for one in end_jobs(FakeClient({"a": 0}, silent=True), said.append, limit_s=60.0)] == ["a"]
    assert said[-1] == "no Ray Jobs API answers"


class RefusingClient(FakeClient):
    """Knows nothing of "gone", and fails over "odd"."""

    def stop(self, identity: str) -> bool:
        if identity == "gone":
            raise JobUnknown("no such job")
        if identity == "odd":
            raise JobsUnavailable("500: odd")
        return super().stop(identity)

    def answers(self) -> bool:
        return True


def test_a_job_that_is_refused_keeps_no_other_from_being_asked():
    client, said = RefusingClient({"gone": 0, "odd": 0, "c": 2}), []
    assert [one.id for one in end_jobs(client, said.append, limit_s=60.0)] == ["gone", "odd", "c"]
    assert client.asked == ["c"]
    assert client._looks["c"] < 0
    assert "500: odd" in said


@pytest.mark.parametrize("text", ["{}", "run: {dir: runs}\nevaluation: 3\n", "run: 1\nevaluation: {n: 1}\n"])
def test_a_configuration_that_lacks_something_does_not_end_the_recording(tmp_path, text):
    path, _ = started(tmp_path, "one")
    other, _ = started(tmp_path, "two")
    (path / "config.yaml").write_text(text)
    said: list[str] = []
    record([job("a", "RUNNING", path), job("b", "RUNNING", other)], said.append)
    assert "is no whole configuration of a run: it lacks" in said[0]
    assert said[1].endswith("it is recorded as stopped")
