"""Child processes and actors run the driver's code; sockets, home and proxies of odd machines."""

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import rewards.ray_start
from conf.child import ROOT, module_command
from conf.loopback import is_loopback, keep_from_proxy
from conf.short_folder import PLACES, NoShortFolder, new_short_folder, room_in, short_folder
from operate.jobs.client import JobsClient, JobsUnavailable, auth_headers
from operate.jobs.head import HeadFailed, start_head
from operate.jobs.package import PACKAGES
from rewards.ray_start import give_token, ray_folder, start_private_ray
from rewards.same_code import PACKAGES as COMPARED
from rewards.same_code import VARIABLE, OtherCode, check_same_code, digest, variables

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
FOREIGN = {"operate/serve.py": "vLLM's", "operate/jobs/submit.py": "the cluster's interpreter, in the package's folder"}
"""Where python -m is meant: modules that are not ours, or another machine's."""


def test_a_child_runs_this_code_where_the_working_directory_holds_other_packages(tmp_path):
    for name in ("rollout", "conf", "trainer"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('another project')\n")
    command = module_command("operate.jobs", "list", "--address", "nowhere")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (
        1,
        "error: nowhere is no address of a Ray dashboard: write http://HEAD:8265\n",
    )


def test_no_other_command_starts_our_modules_with_the_working_directory_first():
    found = set()
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            if '"-m"' in file.read_text():
                found.add(str(file.relative_to(ROOT)))
    assert found == FOREIGN.keys()


def test_code_is_compared_sent_and_installed_with_all_that_it_imports():
    imported = re.compile(rf"^\s*(?:from|import) ({'|'.join(PACKAGES)})\b", re.MULTILINE)
    files = [file for package in COMPARED for file in (ROOT / package).rglob("*.py")]
    assert {name for file in files for name in imported.findall(file.read_text())} <= {*COMPARED}
    found = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    assert [*found["setuptools"]["packages"]["find"]["include"]] == [f"{name}*" for name in PACKAGES]
    assert found["importlinter"]["root_packages"] == [*PACKAGES]


def test_ray_starts_where_its_workers_find_this_code_and_nothing_else(tmp_path, monkeypatch):
    started: list[Path] = []
    ray = SimpleNamespace(init=lambda **_: started.append(Path.cwd()))
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.chdir(tmp_path)
    start_private_ray(1)
    assert started == [ROOT]
    assert Path.cwd() == tmp_path
    monkeypatch.setattr(rewards.ray_start, "ROOT", Path(rewards.ray_start.sysconfig.get_path("purelib")).resolve())
    start_private_ray(1)
    assert started[1] == Path(sys.prefix)


def test_an_actor_with_other_code_refuses_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    check_same_code()
    monkeypatch.setenv(VARIABLE, variables()[VARIABLE])
    check_same_code()
    monkeypatch.setenv(VARIABLE, "0123456789abcdef")
    with pytest.raises(OtherCode, match=f"runs other code than the driver, from {ROOT}: bring both to one version"):
        check_same_code()
    (tmp_path / "rollout").mkdir()
    file = tmp_path / "rollout" / "pool.py"
    file.write_text("LIMIT = 1\n")
    before = digest(tmp_path)
    assert digest(tmp_path) == before
    file.write_text("LIMIT = 2\n")
    assert digest(tmp_path) != before


def test_a_long_folder_for_temporary_files_gets_a_short_one_beside_it(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/tmp")
    assert ray_folder() is None
    monkeypatch.setenv("TMPDIR", str(tmp_path / ("l" * 80)))
    chosen = ray_folder()
    assert chosen is not None
    assert chosen == short_folder()
    assert room_in(chosen, "ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")
    assert os.stat(chosen).st_mode & 0o077 == 0
    assert not room_in("/" + "é" * 40, "x" * 30), "bytes count, not letters"


def test_no_short_folder_is_one_sentence(monkeypatch):
    def refuse(**_: object) -> str:
        raise PermissionError("read-only")

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    with pytest.raises(NoShortFolder, match=f"no folder can be made in any of {', '.join(PLACES)}"):
        new_short_folder()


def test_a_home_that_cannot_be_written_gets_a_token_of_the_process(tmp_path, monkeypatch):
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    give_token()
    assert "RAY_AUTH_TOKEN" not in os.environ
    monkeypatch.setenv("HOME", "/proc/nothing")
    with pytest.raises(HeadFailed, match="the home folder cannot be written.*set RAY_AUTH_TOKEN_PATH"):
        start_head(1, tmp_path / "head.json")
    give_token()
    token = os.environ["RAY_AUTH_TOKEN"]
    assert len(token) == 64
    monkeypatch.setenv("RAY_AUTH_TOKEN", token)  # so that it goes with the test
    assert auth_headers() == {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://127.0.0.1:8265", True),
        ("http://127.8.9.1", True),
        ("http://localhost:1/v1", True),
        ("http://[::1]:80", True),
        ("http://head.localhost", True),
        ("http://192.0.2.7:8265", False),
        ("https://host/v1", False),
        ("http://localhost.example", False),
        ("nothing", False),
    ],
)
def test_loopback_is_told_by_the_kind_of_address(url, here):
    assert is_loopback(url) is here


class Proxy(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps([]).encode())

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def proxy(monkeypatch):
    server = HTTPServer(("127.0.0.1", 0), Proxy)
    server.asked = []  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
    yield server
    server.shutdown()
    server.server_close()


def test_questions_to_a_local_head_pass_no_proxy_and_others_do(proxy, monkeypatch):
    with pytest.raises(JobsUnavailable):
        JobsClient("http://127.0.0.1:9").jobs()
    assert proxy.asked == []
    assert JobsClient("http://head.invalid:8265").jobs() == []
    assert proxy.asked == ["http://head.invalid:8265/api/jobs/"]


def test_libraries_that_read_the_environment_leave_the_proxy_out_for_loopback_alone(proxy, monkeypatch):
    requests = pytest.importorskip("requests")
    monkeypatch.setenv("no_proxy", "intra.example")
    monkeypatch.setenv("NO_PROXY", "intra.example")
    keep_from_proxy("http://127.0.0.9:8265")
    assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == "intra.example,127.0.0.9"
    assert requests.utils.get_environ_proxies("http://127.0.0.9:8265/api") == {}
    assert requests.utils.get_environ_proxies("http://192.0.2.7:8265/api") != {}
    keep_from_proxy("http://192.0.2.7:8265")
    assert os.environ["no_proxy"] == "intra.example,127.0.0.9"
