"""Following a growing run: only whole new rows, replaced files, the terminal's picture, the web server's answers."""

import asyncio
import http.client
import io
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from operate.watch.live import LiveRun, RowTail
from operate.watch.terminal import dashboard, follow, sparkline
from operate.watch.web import AddressInUse, WatchServer
from records.files import RecordsDamaged
from records.report.page import render_report
from records.run_folder import RunFolder, RunFolderError
from records.states import FILE, read_states, shown


def test_a_tail_gives_whole_new_rows_once(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    tail = RowTail(path)
    assert tail.read() == (False, [])
    path.write_text('{"a":1}\n{"a":2}\n{"a"')
    assert tail.read() == (True, [{"a": 1}, {"a": 2}])
    assert tail.read() == (False, [])
    with path.open("a") as file:
        file.write(":3}\n")
    assert tail.read() == (False, [{"a": 3}])


def test_a_tail_notices_that_a_resumed_run_cut_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a":1}\n{"a":2}\n')
    tail = RowTail(path)
    tail.read()
    shorter = tmp_path / "new"
    shorter.write_text('{"a":1}\n{"b":2}\n')
    shorter.replace(path)
    assert tail.read() == (True, [{"a": 1}, {"b": 2}])


def test_a_damaged_row_is_named_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a":1}\n')
    tail = RowTail(path)
    tail.read()
    with path.open("a") as file:
        file.write("oops\n")
    with pytest.raises(RecordsDamaged, match="rows.jsonl:2"):
        tail.read()


def test_a_live_run_follows_what_is_written(tmp_path: Path, make_run) -> None:
    path = make_run(tmp_path / "r", steps=12, asked=20, finished=False)
    live = LiveRun(path)
    before = live.refresh()
    assert (before.status, before.step, before.steps) == ("unfinished", 12, 20)
    with RunFolder(path, resume=True) as folder:
        folder.write({"step": 13, "version": 13, "reward/total/mean": 2.0})
        after = live.refresh()
        assert (after.status, after.step, after.samples.total) == ("running", 13, before.samples.total)
        folder.rewind(10)
        assert live.refresh().step == 10
    with pytest.raises(RunFolderError, match="no run folder"):
        LiveRun(tmp_path)


def test_sparklines() -> None:
    assert sparkline([0, 1, 2, 7]) == "▁▂▃█"
    assert sparkline([5, 5]) == "▄▄"
    assert sparkline(list(range(100)), width=2) == "▁█"
    assert sparkline([]) == ""


def test_the_terminal_shows_the_run(tmp_path: Path, make_run) -> None:
    live = LiveRun(make_run(tmp_path / "r", steps=12, asked=20, finished=False))
    console = Console(file=io.StringIO(), width=120, record=True)
    run = live.refresh()
    console.print(dashboard(run, live.rows))
    text = console.export_text()
    for part in ("step 12 of 20", "reward", "greedy EX", "63.0 %", "generate", "of 8 right", "SELECT"):
        assert part in text


def test_what_each_part_is_doing_is_shown_while_a_job_runs(tmp_path: Path, make_run) -> None:
    path = make_run(tmp_path / "r", steps=3, asked=20, finished=False)
    (path / FILE).write_text('{"learner": "left by a driver that was killed"}')
    states = {"rollout worker 0": "ready (4 groups)", "learner": "training"}

    async def job() -> None:
        async with shown(path, lambda: states, every_s=0.01):
            await asyncio.sleep(0.05)
            assert read_states(path) == states
            console = Console(file=io.StringIO(), width=120, record=True)
            run = LiveRun(path).refresh()
            console.print(dashboard(run, []))
            assert "rollout worker 0: ready (4 groups)   learner: training" in console.export_text()
            assert "<dt>rollout worker 0</dt><dd>ready (4 groups)</dd>" in render_report(run)
            states["learner"] = "saving"
            await asyncio.sleep(0.05)
            assert read_states(path)["learner"] == "saving"

    assert LiveRun(path).refresh().states == ()
    with RunFolder(path, resume=True):
        assert LiveRun(path).refresh().states == ()
        asyncio.run(job())
        assert read_states(path) == {}
    for text in ("half", "[1]", "null", "[" * 100_000):
        (path / FILE).write_text(text)
        with pytest.raises(RecordsDamaged, match="states.json is no JSON"):
            read_states(path)


def test_a_run_that_is_gone_on_with_runs_although_the_summary_before_is_still_there(tmp_path: Path, make_run) -> None:
    path = make_run(tmp_path / "r", steps=3)
    assert LiveRun(path).refresh().status == "finished"
    with RunFolder(path, resume=True):
        assert LiveRun(path).refresh().status == "running"
    (path / "summary.json").write_text("{}")
    with pytest.raises(RecordsDamaged, match="no summary of a run"):
        LiveRun(path).refresh()


def test_a_full_disk_does_not_end_a_run_for_its_states(tmp_path: Path) -> None:
    async def job() -> None:
        async with shown(tmp_path / "absent", dict, every_s=0.01):
            await asyncio.sleep(0.03)

    asyncio.run(job())


def test_without_a_terminal_every_row_is_one_line_and_the_end_is_told(tmp_path: Path, make_run) -> None:
    out = io.StringIO()
    follow(LiveRun(make_run(tmp_path / "demo", steps=3)), Console(file=out, width=80))
    lines = out.getvalue().splitlines()
    assert [line.split("  ")[0] for line in lines] == ["step 0/3", "step 1/3", "step 2/3", "step 3/3", "demo: finished"]


@pytest.fixture
def server(tmp_path: Path, make_run) -> Iterator[WatchServer]:
    with WatchServer(make_run(tmp_path / "run", steps=5, asked=9, finished=False)) as opened:
        thread = threading.Thread(target=opened.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield opened
        opened.shutdown()
        thread.join(timeout=10)


def get(server: WatchServer, path: str, **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, body


def test_the_state_is_sent_only_when_it_changed(server: WatchServer) -> None:
    status, body = get(server, "/state")
    assert status == 200
    state = json.loads(body)
    assert "5 of 9" in state["parts"]["overview"]
    assert "<svg" in state["parts"]["curves"]
    assert get(server, f"/state?seen={state['digest']}") == (204, "")
    with RunFolder(server.live.path, resume=True) as folder:
        folder.write({"step": 6, "version": 6, "reward/total/mean": 2.0})
    status, body = get(server, f"/state?seen={state['digest']}")
    assert "6 of 9" in json.loads(body)["parts"]["overview"]


def test_the_server_answers_only_its_own_addresses_and_names(server: WatchServer) -> None:
    assert get(server, "/")[0] == 200
    assert get(server, "/../config.yaml")[0] == 404
    assert get(server, "/", Host="attacker.example")[0] == 403
    assert get(server, "/state", Host=f"attacker.example:{server.server_port}")[0] == 403


def test_the_address_of_a_request_names_the_host_before_the_header(server: WatchServer) -> None:
    own = f"127.0.0.1:{server.server_port}"
    assert get(server, f"http://{own}/state", Host="attacker.example")[0] == 200
    assert get(server, "http://attacker.example/state", Host=own)[0] == 403


def test_odd_requests_and_clients_that_leave_write_no_traceback(
    server: WatchServer, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=10) as odd:
        odd.sendall(b"GET http://[::1/ HTTP/1.1\r\n\r\n")
        assert odd.recv(100).startswith(b"HTTP/1.0 400")
    whole = f"GET / HTTP/1.1\r\nHost: localhost:{server.server_port}\r\n\r\n".encode()
    for sent in (b"GET / HTTP/1.1\r\nHost: ", whole):
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=10) as leaving:
            leaving.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            leaving.sendall(sent)
    assert get(server, "/")[0] == 200
    (server.live.path / "config.yaml").write_text("[1")
    assert get(server, "/state")[0] == 500
    time.sleep(0.2)
    assert "Traceback" not in capfd.readouterr().err


def test_on_every_address_it_answers_to_addresses_and_to_no_foreign_name(tmp_path: Path, make_run) -> None:
    with WatchServer(make_run(tmp_path / "run", steps=2), host="0.0.0.0") as opened:
        thread = threading.Thread(target=opened.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        assert get(opened, "/")[0] == 200
        assert get(opened, "/", Host=f"192.0.2.7:{opened.server_port}")[0] == 200
        assert get(opened, "/", Host=f"attacker.example:{opened.server_port}")[0] == 403
        opened.shutdown()
        thread.join(timeout=10)


def hangs_up(client: socket.socket) -> bool:
    """Whether the server ends the connection while the client goes on sending, for 20 s at most."""
    for _ in range(400):
        try:
            client.sendall(b"x")
        except OSError:
            return True
        time.sleep(0.05)
    return False


def test_a_slow_client_is_not_waited_for(server: WatchServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("operate.watch.web.REQUEST_S", 0.3)
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=10) as slow:
            slow.sendall(b"GET / HTTP/1.1\r\nX-Slow: ")
            assert hangs_up(slow)
    assert get(server, "/")[0] == 200


def test_a_taken_port_is_one_clear_sentence(server: WatchServer) -> None:
    with pytest.raises(AddressInUse, match=f"127.0.0.1:{server.server_port}.*another --port"):
        WatchServer(server.live.path, port=server.server_port)


def test_damaged_records_are_an_answer_and_not_a_hang(server: WatchServer) -> None:
    with (server.live.path / "metrics.jsonl").open("a") as file:
        file.write("oops\n")
    status, body = get(server, "/state")
    assert status == 500
    assert "is no JSON" in body
