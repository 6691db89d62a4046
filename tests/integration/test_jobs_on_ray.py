"""A real Ray head on the loopback address: submit, follow, stop, and the end of the head."""

import contextlib
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from operate.jobs.client import JobsClient, auth_headers
from operate.jobs.head import running_head
from operate.jobs.submit import submit

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[2]


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # -m finds the packages here although the current folder is another.
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder whose head ends with the tests."""
    folder = tmp_path_factory.mktemp("place")
    yield folder
    command(folder, "operate.jobs", "shutdown")


def test_a_benchmark_runs_as_a_job_is_followed_and_listed(place):
    (place / "answers.txt").write_text("SELECT 1\n" * 3)
    done = command(
        *(place, "operate.jobs.command", "--follow", "bench", "demo", "data.heldout_size=3"),
        *("predictions=answers.txt", "output=out"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "it stays until `quorum jobs shutdown`" in done.stderr
    assert (place / "out" / "scores.json").is_file()
    job = done.stdout.splitlines()[0]
    started = time.perf_counter()
    listed = command(place, "operate.jobs", "list")
    seconds = time.perf_counter() - started
    assert job in listed.stdout
    assert "SUCCEEDED" in listed.stdout
    assert seconds < 2.0, f"listing took {seconds:.2f} s"
    assert str(place / "out") in command(place, "operate.jobs", "status", job).stdout


def test_what_is_sent_has_all_that_an_engine_needs(place, finished):
    policy = max(finished.glob("checkpoints/step-*/policy"))
    done = command(
        *(place, "operate.jobs.command", "--follow", "bench", "demo", "data.heldout_size=3"),
        *(f"model.path={policy}", "sampling.n=2", "workers=1", "output=generated"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len((place / "generated" / "generations.jsonl").read_text().splitlines()) >= 3


def test_a_wrong_token_is_refused_by_the_head(place, monkeypatch):
    head = running_head(place / "runs/.cache/head.json")
    assert head is not None
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 32)
    assert not JobsClient(head.address).answers()


PROGRAM = """
import ray, time
from records.sinks.prometheus_sink import PrometheusSink
ray.init(address='auto')
sink = PrometheusSink('mine')
sink.write({'step': 7, 'version': 7, 'reward/accuracy': 0.5, 'policy/entropy': None})
print('written', flush=True)
time.sleep(300)
"""


def test_rays_exporter_serves_a_runs_metrics(place):
    from ray.job_submission import JobSubmissionClient

    head = running_head(place / "runs/.cache/head.json")
    assert head is not None
    client = JobSubmissionClient(head.address, headers=auth_headers())
    job = client.submit_job(
        entrypoint=shlex.join([sys.executable, "-c", PROGRAM]), runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}}
    )
    found, limit = "", time.monotonic() + 90
    while "ray_quorum_reward_accuracy{" not in found and time.monotonic() < limit:
        time.sleep(2)
        found = "\n".join(_scrapes(Path(head.folder)))
    client.stop_job(job)
    lines = [line for line in found.splitlines() if line.startswith("ray_quorum_")]
    assert any(line.startswith("ray_quorum_reward_accuracy{") and 'run="mine"' in line for line in lines), lines
    assert not any("entropy" in line for line in lines)


def _scrapes(folder: Path) -> Iterator[str]:
    """What Prometheus would get from every exporter that Ray announces."""
    for group in json.loads((folder / "prom_metrics_service_discovery.json").read_text()):
        for target in group["targets"]:
            with contextlib.suppress(OSError), urlopen(f"http://{target}/metrics", timeout=10) as answer:
                yield answer.read().decode()


def test_a_job_is_stopped_and_the_head_ends_with_all_its_processes(place):
    head = running_head(place / "runs/.cache/head.json")
    assert head is not None
    client = JobsClient(head.address)
    job = submit(head.address, python=sys.executable, module="http.server", arguments=["0"], name="s", folder="/")
    limit = time.monotonic() + 60
    while client.job(job).status != "RUNNING" and time.monotonic() < limit:
        time.sleep(0.2)
    assert client.job(job).status == "RUNNING"
    assert client.stop(job) is True
    limit = time.monotonic() + 60
    while not client.job(job).ended and time.monotonic() < limit:
        time.sleep(0.2)
    assert client.job(job).status == "STOPPED"
    assert command(place, "operate.jobs", "shutdown").stdout == "the head has ended\n"
    assert not head.alive()
    left = subprocess.run(["pgrep", "-f", head.folder], capture_output=True, text=True).stdout
    assert left == ""
    assert "no cluster is known" in command(place, "operate.jobs", "list").stderr
