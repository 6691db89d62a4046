"""The HTTP server as a process: scores, refusals, metrics, and an end that leaves nothing behind."""

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
THINK = "<think>" + "The question asks for dogs, so the dog table is read and its rows are counted. " * 2 + "</think>"
TOKEN = {"Authorization": "Bearer secret"}


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("databases")
    (root / "dogs").mkdir()
    connection = sqlite3.connect(root / "dogs" / "dogs.sqlite")
    connection.execute("CREATE TABLE dog (name TEXT)")
    connection.execute("INSERT INTO dog VALUES ('rex')")
    connection.commit()
    connection.close()
    return root


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def server(databases: Path) -> Iterator[str]:
    port = free_port()
    environment = {**os.environ, "QUORUM_REWARD_TOKEN": "secret"}
    command = [sys.executable, "-m", "rewards.server", f"databases={databases}", f"port={port}"]
    command += ["header_timeout_s=3", "body_timeout_s=2"]
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    address = f"http://127.0.0.1:{port}"
    _wait_until_up(process, address)
    yield address
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=120)
    _, alive = psutil.wait_procs(children, timeout=30)
    assert alive == []


def _wait_until_up(process: subprocess.Popen[str], address: str) -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        assert process.poll() is None, "the server ended while starting"
        try:
            if httpx.get(f"{address}/healthz", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.5)
    process.kill()
    pytest.fail("the server did not come up")


def case(identity: object, sql: str, **changes: object) -> dict[str, object]:
    fields = {"id": identity, "db_id": "dogs", "gold_sqls": ["SELECT name FROM dog"], "denotation": "bird"}
    return {**fields, "completion": THINK + sql, **changes}


def test_scores_come_back_in_order(server: str) -> None:
    cases = [case(n, sql) for n, sql in enumerate(("SELECT name FROM dog", "DROP TABLE dog", "SELECT name FROM dog"))]
    reply = httpx.post(f"{server}/score", json={"cases": cases}, headers=TOKEN, timeout=120)
    assert reply.status_code == 200, reply.text
    results = reply.json()["results"]
    assert [(r["id"], r["total"], r["error_kind"]) for r in results] == [
        (0, 4.0, None),
        (1, 1.0, "forbidden"),
        (2, 4.0, None),
    ]


def test_what_cannot_be_scored_is_null_never_zero(server: str) -> None:
    cases = [case(1, "SELECT 1", db_id="cats"), case(2, "SELECT 1", gold_sqls=["SELECT broken"])]
    reply = httpx.post(f"{server}/score", json={"cases": cases}, headers=TOKEN, timeout=120)
    results = reply.json()["results"]
    assert [(r["status"], r["total"]) for r in results] == [("unscorable", None)] * 2
    assert [r["cause"] for r in results] == ["infrastructure", "data"]


def test_an_id_comes_back_as_it_was_given(server: str) -> None:
    deep = json.loads("[" * 400 + "]" * 400)
    reply = httpx.post(f"{server}/score", json={"cases": [case(deep, "SELECT 1")]}, headers=TOKEN, timeout=120)
    assert reply.json()["results"][0]["id"] == deep


@pytest.mark.parametrize("body", ["{", "[]", '{"cases": [{"id": 1}]}', '{"cases": 3}'])
def test_wrong_requests_are_refused(server: str, body: str) -> None:
    reply = httpx.post(f"{server}/score", content=body, headers=TOKEN, timeout=60)
    assert reply.status_code == 422


def test_the_token_is_asked_for(server: str) -> None:
    for path in ("/score", "/metrics"):
        method = "POST" if path == "/score" else "GET"
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            assert httpx.request(method, server + path, headers=headers, timeout=60).status_code == 401


def test_everything_but_the_health_is_behind_the_token_and_under_this_machines_names(server: str) -> None:
    for path in ("/openapi.json", "/docs", "/-/routes", "/-/healthz", "/metrics", "/elsewhere"):
        assert httpx.get(server + path, timeout=60).status_code == 401, path
    assert httpx.get(f"{server}/openapi.json", headers=TOKEN, timeout=60).status_code == 404
    assert httpx.get(f"{server}/healthz", timeout=60).status_code == 200
    assert httpx.get(f"{server}/metrics", headers={"Authorization": "bearer secret"}, timeout=60).status_code == 200
    assert httpx.get(f"{server}/metrics", headers={"Authorization": "secret"}, timeout=60).status_code == 401
    foreign = {"Host": f"evil.example:{server.rpartition(':')[2]}"}
    assert httpx.get(f"{server}/healthz", headers=foreign, timeout=60).status_code == 403
    body = {"cases": [case(1, "SELECT name FROM dog")]}
    page = TOKEN | {"Origin": "http://evil.example"}
    assert httpx.post(f"{server}/score", json=body, headers=page, timeout=60).status_code == 403
    page["Origin"] = server.replace("127.0.0.1", "localhost")
    assert httpx.post(f"{server}/score", json=body, headers=page, timeout=60).status_code == 200


def test_slow_clients_are_not_waited_for(server: str) -> None:
    port = int(server.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=20) as silent:
        lines = ("POST /score HTTP/1.1", f"Host: 127.0.0.1:{port}", "Authorization: Bearer secret", "Content-Length: 9")
        head = "".join(f"{line}\r\n" for line in (*lines, ""))
        with socket.create_connection(("127.0.0.1", port), timeout=20) as slow:
            slow.sendall(head.encode() + b"{")
            assert slow.recv(4096).startswith(b"HTTP/1.1 408")
        assert silent.recv(4096) == b""


def test_a_taken_port_is_one_sentence(server: str, databases: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from rewards.http import main

    port = server.rpartition(":")[2]
    assert main([f"databases={databases}", f"port={port}"]) == 1
    expected = f"error: cannot listen on 127.0.0.1:{port}: Address already in use; choose another port=\n"
    assert capsys.readouterr().err == expected


def test_metrics_for_prometheus(server: str) -> None:
    text = httpx.get(f"{server}/metrics", headers=TOKEN, timeout=60).text
    assert "quorum_reward_actors 1.0" in text
    assert "quorum_reward_queue_groups 0.0" in text


def test_the_documented_trl_client(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "rewards.md").read_text(), re.DOTALL)
    monkeypatch.setenv("QUORUM_REWARD_TOKEN", "secret")
    names: dict[str, Any] = {}
    exec(code.replace("http://127.0.0.1:8400", server), names)
    right = THINK + "SELECT name FROM dog"
    asked = {"db_id": ["dogs", "dogs", "cats"], "gold_sqls": [["SELECT name FROM dog"]] * 3}
    talk = [{"role": "assistant", "content": right}]
    assert names["quorum_reward"](["DROP TABLE dog", right, right], prompts=["?"] * 3, **asked) == [0.0, 4.0, None]
    assert names["quorum_reward"]([talk] * 3, **asked) == [4.0, 4.0, None]
    plain = ["SELECT name FROM dog", "SELECT upper(name) FROM dog", "SELECT name FROM dog"]
    right_plain, wrong_plain, lost = names["quorum_reward"](plain, **asked)
    assert (right_plain, lost) == (3.0, None)
    assert 1.0 <= wrong_plain < 3.0


def test_the_answer_says_what_its_form_costs(server: str) -> None:
    plain = {"completion": "SELECT name FROM dog"}
    asked = [case(1, "", **plain), case(2, "", **plain, thinking=False)]
    reply = httpx.post(f"{server}/score", json={"cases": asked}, headers=TOKEN, timeout=120)
    gated, asked_for = reply.json()["results"]
    assert (gated["total"], gated["flags"], gated["form"]) == (0, ["format_gate"], "it has no <think> block")
    assert (asked_for["total"], asked_for["components"]["format"]) == (3.0, None)
    assert "form" not in asked_for


def test_an_open_address_needs_a_token(databases: Path) -> None:
    command = [sys.executable, "-m", "rewards.server", f"databases={databases}", "host=0.0.0.0"]
    environment = {name: value for name, value in os.environ.items() if name != "QUORUM_REWARD_TOKEN"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert "QUORUM_REWARD_TOKEN" in done.stderr


def test_reward_actors_that_cannot_start_end_the_command(databases: Path) -> None:
    store = databases / "nowhere.sqlite"
    command = [sys.executable, "-m", "rewards.server", f"databases={databases}", f"port={free_port()}"]
    command.append(f"reward.memory.store={store}")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 1
    assert "serving" not in done.stdout
    assert str(store) in done.stderr.splitlines()[-1]


def test_a_ray_that_does_not_come_up_is_one_sentence(
    databases: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rewards.http import main

    def late(**_: object) -> None:
        raise Exception("The current node\ntimed out during startup.")

    monkeypatch.setattr("ray.init", late)
    assert main([f"databases={databases}", f"port={free_port()}"]) == 1
    assert capsys.readouterr().err == (
        "error: Ray could not be used on this machine: The current node timed out during startup.\n"
    )
