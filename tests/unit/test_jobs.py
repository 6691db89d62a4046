"""Jobs without a cluster: what is packaged, how settings are completed, what the API's answers become."""

import json
import resource
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import operate.jobs.__main__
from conf.errors import ConfigError, QuorumError
from conf.load import load
from conf.schema.root import TrainConfig
from operate.jobs.__main__ import continued, resubmit
from operate.jobs.client import JobInfo, JobsClient, JobsUnavailable, JobUnknown, auth_headers
from operate.jobs.command import _is_setting
from operate.jobs.head import Head, running_head
from operate.jobs.package import MAX_BYTES, PackageTooLarge, source_files, stage
from operate.jobs.settings import KINDS, prepare, take_address
from operate.jobs.submit import NO_NODE, taken

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "t0ken"


class Api(BaseHTTPRequestHandler):
    """Ray's Jobs API, as far as these tests ask it."""

    server: "ApiServer"

    def do_GET(self) -> None:
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer(401, "Unauthorized")
        elif self.path == "/api/jobs/":
            self._answer(200, json.dumps(list(self.server.jobs.values())))
        else:
            name, _, what = self.path.removeprefix("/api/jobs/").partition("/")
            job = self.server.jobs.get(name)
            if job is None:
                self._answer(404, f"Job {name} does not exist")
            elif what == "logs":
                self.server.asked += 1
                self._answer(200, json.dumps({"logs": "one\ntwo\nthree\n"[: 5 * self.server.asked]}))
            else:
                self._answer(200, json.dumps(job | {"status": "SUCCEEDED" if self.server.asked > 1 else "RUNNING"}))

    def do_POST(self) -> None:
        self._answer(200, json.dumps({"stopped": True}))

    def _answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: Any) -> None:
        pass


class ApiServer(ThreadingHTTPServer):
    asked = 0
    jobs: dict[str, dict[str, Any]]


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[JobsClient]:
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.setattr("operate.jobs.client.POLL_S", 0.01)
    job = {"type": "SUBMISSION", "entrypoint": "python -m trainer", "status": "RUNNING", "metadata": None}
    server = ApiServer(("127.0.0.1", 0), Api)
    server.jobs = {
        "late": job | {"submission_id": "late", "start_time": 2000, "end_time": 3500},
        "early": job | {"submission_id": "early", "start_time": 1000, "end_time": None},
        "driver": {"type": "DRIVER", "submission_id": None},
    }
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield JobsClient(f"http://127.0.0.1:{server.server_port}/")
    server.shutdown()
    server.server_close()


def test_submitted_jobs_are_listed_oldest_first(api):
    assert [job.id for job in api.jobs()] == ["early", "late"]
    assert api.jobs()[1].ended_s == 3.5


@pytest.mark.parametrize("arguments", [["operate.jobs", "list", "--address", "ADDRESS"], ["conf.front", "--help"]])
def test_a_question_is_answered_in_less_than_a_second(api, arguments):
    words = [api.address if word == "ADDRESS" else word for word in arguments]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    answer = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, timeout=60, cwd=ROOT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert answer.returncode == 0, answer.stderr
    assert "early" in answer.stdout or "quorum VERB" in answer.stdout
    # CPU time: what others do on the machine is no reason to fail.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0


def test_following_yields_each_piece_once_and_ends_with_the_job(api):
    assert list(api.follow("late")) == ["one\nt", "wo\nth", "ree\n"]


def test_an_unknown_job_a_missing_token_and_a_silent_address_are_one_sentence_each(api, monkeypatch):
    with pytest.raises(JobUnknown, match="Job none does not exist"):
        api.job("none")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "wrong")
    with pytest.raises(JobsUnavailable, match="wants its cluster's token"):
        api.jobs()
    with pytest.raises(JobsUnavailable, match="no Ray Jobs API answers at http://127.0.0.1:9"):
        JobsClient("http://127.0.0.1:9").jobs()
    with pytest.raises(JobsUnavailable, match="no address of a Ray dashboard"):
        JobsClient("127.0.0.1:8265")


def test_the_token_comes_from_the_places_where_ray_looks(tmp_path, monkeypatch):
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert auth_headers() == {}
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("from-home\n")
    assert auth_headers() == {"Authorization": "Bearer from-home"}
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert auth_headers() == {}


def test_the_package_is_source_alone(tmp_path):
    size = stage(ROOT, tmp_path / "package")
    files = {
        str(file.relative_to(tmp_path / "package")) for file in (tmp_path / "package").rglob("*") if file.is_file()
    }
    assert {"trainer/__main__.py", "conf/train.yaml", "rollout/cpu/decoder.c", "rollout/cpu/vectors.h"} <= files
    installed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["*"]
    assert {Path(file).suffix for file in files} == {".py", *(Path(pattern).suffix for pattern in installed)}
    assert not [file for file in files if "__pycache__" in file or file.startswith(("runs", "tests", ".venv"))]
    assert size == sum((ROOT / file).stat().st_size for file in files) < 3 * 2**20


def test_a_forgotten_large_file_is_named(tmp_path):
    (tmp_path / "conf").mkdir()
    with (tmp_path / "conf" / "dump.py").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    assert source_files(tmp_path) == [Path("conf/dump.py")]
    with pytest.raises(PackageTooLarge, match=r"the largest file is conf/dump\.py"):
        stage(tmp_path, tmp_path / "package")


def test_a_job_gets_absolute_paths_and_the_clusters_own_address():
    address, overrides = take_address(["experiment=quickstart", "cluster.address=http://head:8265", "seed=3"])
    assert (address, overrides) == ("http://head:8265", ["experiment=quickstart", "seed=3"])
    settings = prepare(KINDS["train",], overrides, Path("/shared/it's a disk"))
    config = load(TrainConfig, "train", settings.arguments)
    assert config.run.dir == "/shared/it's a disk/runs"
    assert config.warmup.cache == "/shared/it's a disk/runs/.cache/warmup"
    assert config.data.root == "/shared/it's a disk/runs/.cache/demo"
    assert config.cluster.address == "auto"
    assert config.seed == 3
    assert (settings.name, settings.folder) == ("quickstart", "/shared/it's a disk/runs/quickstart")
    assert settings.cpus == 4  # two engines of one thread, a learner of two


def test_relative_paths_are_refused_where_no_folder_is_shared():
    with pytest.raises(ConfigError, match=r"run\.dir, data\.root, warmup\.cache: a relative path means another place"):
        prepare(KINDS["train",], ["experiment=quickstart"], None)


def test_a_ray_address_takes_no_jobs():
    with pytest.raises(ConfigError, match="dashboard"):
        take_address(["cluster.address=ray://head:10001"])


def test_a_benchmark_is_prepared_the_same_way():
    settings = prepare(KINDS["bench", "demo"], ["predictions=p.jsonl", "output=out/run"], Path("/s"))
    assert "++predictions=/s/p.jsonl" in settings.arguments
    assert (settings.name, settings.folder) == ("run", "/s/out/run")


def test_resuming_says_so_to_a_training_and_changes_nothing_for_a_benchmark():
    assert continued("trainer", ["seed=1", "resume=never"]) == ["seed=1", "resume=auto"]
    assert continued("benchmarks.spider", ["limit=1"]) == ["limit=1"]


def test_a_running_job_is_not_resumed():
    job = JobInfo(id="x", status="RUNNING", entrypoint="e", message="", metadata={}, started_s=None, ended_s=None)
    with pytest.raises(QuorumError, match="x is running: stop it"):
        resubmit(JobsClient("http://head"), job)


def test_a_head_whose_process_is_another_is_gone(tmp_path):
    import os

    file = tmp_path / "head.json"
    head = {"address": "http://127.0.0.1:1", "pid": os.getpid(), "started": 1.0, "folder": "/nowhere"}
    file.write_text(json.dumps(head))
    assert Head(**head).alive() is False
    assert running_head(file) is None


@pytest.mark.parametrize("text", ["", "[]", "{", '{"address": 1}', '{"address": "a", "pid": "1"}'])
def test_a_damaged_file_of_the_head_is_one_sentence(tmp_path, text):
    file = tmp_path / "head.json"
    file.write_text(text)
    with pytest.raises(QuorumError, match=r"head\.json, which says where .* is damaged \(.*remove it"):
        running_head(file)


@pytest.mark.parametrize(("arguments", "said"), [(["shutdown"], ""), (["logs", "a"], "; the job goes on")])
def test_ctrl_c_promises_only_of_a_job_that_is_followed_that_it_goes_on(monkeypatch, capsys, arguments, said):
    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setitem(operate.jobs.__main__.VERBS, arguments[0], interrupted)
    monkeypatch.setattr(sys, "argv", ["jobs", *arguments])
    assert operate.jobs.__main__.main() == 130
    assert capsys.readouterr().err == f"interrupted{said}\n"


def test_settings_to_submit_are_told_from_the_verb():
    words = ["bench", "spider", "model.path=x", "~reward.memory", "++a=b"]
    assert [word for word in words if _is_setting(word)] == words[2:]


def test_an_address_may_be_quoted_or_left_out():
    for typed in ("'http://head:8265'", '"http://head:8265"', "http://head:8265"):
        assert take_address([f"cluster.address={typed}", "seed=1"]) == ("http://head:8265", ["seed=1"])
    assert take_address(["cluster.address=null"]) == (None, [])


def test_a_head_that_has_just_started_is_asked_again_and_another_refusal_is_not(monkeypatch):
    monkeypatch.setattr("operate.jobs.submit.PAUSE_S", 0.0)
    answers: list[str | RuntimeError] = [RuntimeError(f"status code 500: {NO_NODE}"), "id"]

    def submit_job() -> str:
        answer = answers.pop(0)
        if isinstance(answer, RuntimeError):
            raise answer
        return answer

    assert taken(submit_job) == "id"
    answers.append(RuntimeError("Job id already exists"))
    with pytest.raises(RuntimeError, match="already exists"):
        taken(submit_job)
