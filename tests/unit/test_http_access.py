"""Who may ask our listeners: names of an address, origins, tokens, and what a slow client may hold."""

import asyncio
import http.client
import json
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from conf.errors import ConfigError
from conf.http_access import Access, is_loopback, names_listener, usable_token
from conf.http_guard import HttpGuard
from conf.listening import AddressInUse, check_port
from operate import serve
from operate.serve import ServeRefused, access, check_options, keys, split
from rewards.http_proxy import TimedProtocol

LOOPBACK = "127.0.0.1"


@pytest.mark.parametrize(
    ("host", "authority", "named"),
    [
        (LOOPBACK, "127.0.0.1:8400", True),
        (LOOPBACK, "localhost:8400", True),
        (LOOPBACK, "LocalHost:8400", True),
        (LOOPBACK, "127.8.9.1:8400", True),
        (LOOPBACK, "[::1]:8400", True),
        ("localhost", "127.0.0.1:8400", True),
        ("::1", "[::1]:8400", True),
        (LOOPBACK, "127.0.0.1:8401", False),
        (LOOPBACK, "127.0.0.1", False),
        (LOOPBACK, "localhost", False),
        (LOOPBACK, "evil.example:8400", False),
        (LOOPBACK, "localhost.evil.example:8400", False),
        (LOOPBACK, "127.0.0.1.evil.example:8400", False),
        (LOOPBACK, "evil@localhost:8400", False),
        (LOOPBACK, "10.0.0.5:8400", False),
        (LOOPBACK, "127.1:8400", False),
        (LOOPBACK, "::1:8400", False),
        (LOOPBACK, "", False),
        (LOOPBACK, "localhost:8400 evil", False),
        ("10.0.0.5", "10.0.0.5:8400", True),
        ("10.0.0.5", "10.0.0.6:8400", False),
        ("10.0.0.5", "evil.example:8400", False),
        ("10.0.0.5", "localhost:8400", False),
        ("lab.example", "LAB.example:8400", True),
        ("lab.example", "evil.example:8400", False),
        ("0.0.0.0", "10.0.0.6:8400", True),
        ("0.0.0.0", "[fd00::7]:8400", True),
        ("0.0.0.0", f"{socket.gethostname()}:8400", True),
        ("0.0.0.0", "evil.example:8400", False),
        ("::", "evil.example:8400", False),
    ],
)
def test_a_host_header_must_name_the_listener(host: str, authority: str, named: bool) -> None:
    assert names_listener(authority, host=host, port=8400) is named


def test_a_name_without_a_port_means_the_schemes_own() -> None:
    assert names_listener("localhost", host=LOOPBACK, port=80)
    assert names_listener("localhost", host=LOOPBACK, port=443, scheme="https")
    assert not names_listener("localhost", host=LOOPBACK, port=443)


def test_loopback_is_told_by_the_address() -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "127.3.3.3", "::1", "localhost")] == [True] * 4
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "10.1.1.1", "localhost.example")] == [False] * 4


def status(asked: Access, **request: Any) -> int | None:
    given = {"method": "GET", "path": "/score", "hosts": ["127.0.0.1:8400"]} | request
    refusal = asked.refusal(**given)
    return refusal.status if refusal else None


def test_one_host_header_is_needed() -> None:
    asked = Access(host=LOOPBACK, port=8400)
    assert status(asked) is None
    assert status(asked, hosts=[]) == 403
    assert status(asked, hosts=["127.0.0.1:8400", "evil.example:8400"]) == 403


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:8401", "https://localhost:84000"])
def test_pages_of_other_sites_change_nothing(origin: str) -> None:
    asked = Access(host=LOOPBACK, port=8400)
    assert status(asked, method="POST", origins=[origin]) == 403
    assert status(asked, method="POST", origins=["http://localhost:8400", origin]) == 403
    assert status(asked, method="POST", origins=["http://localhost:8400"]) is None
    # vLLM lets every page read what it answers.
    assert [status(asked, method=method, origins=[origin]) for method in ("GET", "HEAD", "OPTIONS")] == [403] * 3
    assert status(asked, origins=["http://localhost:8400"]) is None
    assert status(asked, method="POST") is None


def test_on_every_address_a_page_of_another_machine_is_no_own_page() -> None:
    asked = Access(host="0.0.0.0", port=8400)
    assert status(asked, method="POST", origins=["http://192.0.2.7:8400"]) == 403
    assert status(asked, method="POST", hosts=["192.0.2.7:8400"], origins=["http://192.0.2.7:8400"]) is None


@pytest.mark.parametrize(
    ("header", "known"),
    [
        (b"Bearer secret", True),
        (b"bearer secret", True),
        (b"BEARER  secret ", True),
        (b"secret", False),
        (b"Basic secret", False),
        (b"Bearer", False),
        (b"Bearer secretsecret", False),
        (b"Bearer SECRET", False),
        (b"Bearer \xff", False),
    ],
)
def test_the_scheme_is_spelled_in_any_case_and_the_token_exactly(header: bytes, known: bool) -> None:
    asked = Access(host=LOOPBACK, port=8400, tokens=("other", "secret"))
    assert status(asked, authorizations=[header]) == (None if known else 401)
    assert status(asked, authorizations=[header, header]) == 401


def test_every_path_but_the_open_ones_is_behind_the_token() -> None:
    asked = Access(host="0.0.0.0", port=8400, tokens=("secret",), open_paths=("/healthz",))
    for path in ("/", "/docs", "/openapi.json", "/-/routes", "/metrics", "/healthz/", "/v1/models", "/invocations"):
        assert status(asked, path=path) == 401
    assert status(asked, path="/healthz") is None
    # Behind a token the service may have any name.
    assert status(asked, hosts=["rewards.example"], authorizations=[b"Bearer secret"]) is None


def test_a_token_that_no_client_can_send_is_refused_without_being_shown() -> None:
    assert usable_token("T", {}) is None
    assert usable_token("T", {"T": ""}) is None
    assert usable_token("T", {"T": "abc\n"}) == "abc"
    for value in ("  ", "two words", "schlüssel"):
        with pytest.raises(ConfigError, match="T holds no usable token") as raised:
            usable_token("T", {"T": value})
        assert value.strip() == "" or value not in str(raised.value)


async def echo(scope: Any, receive: Any, send: Any) -> None:
    message = await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": message["body"]})


@pytest.fixture
def port() -> Iterator[int]:
    """A guarded server under uvicorn, which gives headers 0.4 s and bodies 0.5 s."""
    listening = socket.create_server((LOOPBACK, 0))
    port = listening.getsockname()[1]
    guard = HttpGuard(echo, access=Access(host=LOOPBACK, port=port), body_timeout_s=0.5, max_body_bytes=1000)
    protocol = type("Quick", (TimedProtocol,), {"header_timeout_s": 0.4})
    server = uvicorn.Server(uvicorn.Config(guard, http=protocol, lifespan="off", log_level="critical"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    yield port
    server.should_exit = True
    thread.join(timeout=10)


def post(port: int, body: bytes, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=10)
    connection.request("POST", "/", body=body, headers=headers)
    answer = connection.getresponse()
    said = answer.read()
    connection.close()
    return answer.status, said


def test_the_guard_passes_whole_bodies_and_refuses_large_and_foreign_requests(port: int) -> None:
    assert post(port, b"x" * 1000) == (200, b"x" * 1000)
    assert post(port, b"") == (200, b"")
    assert post(port, b"x" * 1001)[0] == 413
    assert post(port, b"x", Host=f"evil.example:{port}")[0] == 403
    assert post(port, b"x", Origin="http://evil.example")[0] == 403
    assert post(port, b"x", Origin=f"http://localhost:{port}")[0] == 200


def until_closed(port: int, first: bytes, then: bytes = b"") -> tuple[bytes, float]:
    """What the server says to a client that sends `first` and then a byte of `then` every 0.1 s, and after how long."""
    with socket.create_connection((LOOPBACK, port), timeout=10) as client:
        begun = time.monotonic()
        client.sendall(first)
        client.settimeout(0.1)
        said = b""
        while time.monotonic() - begun < 5:
            try:
                got = client.recv(4096)
                if not got:
                    break
                said += got
            except TimeoutError:
                try:
                    client.sendall(then)
                except OSError:
                    break
            except ConnectionError:
                break
        return said, time.monotonic() - begun


def test_slow_headers_and_slow_bodies_end(port: int) -> None:
    head = f"POST / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 500\r\n\r\n".encode()
    said, seconds = until_closed(port, head + b"x", b"x")
    assert said.startswith(b"HTTP/1.1 408")
    assert seconds < 3
    for first in (b"", b"POST / HTTP/1.1\r\nX-Slow: "):
        said, seconds = until_closed(port, first, b"x" if first else b"")
        assert said == b""
        assert 0.3 < seconds < 3
    assert post(port, b"still here") == (200, b"still here")


def test_headers_without_end_are_not_kept(port: int) -> None:
    said, _ = until_closed(port, b"POST / HTTP/1.1\r\nX-Long: " + b"x" * 200_000)
    assert said == b""
    said, _ = until_closed(port, b"POST / HTTP/1.1\r\n" + b"X-Many: x\r\n" * 20_000)
    assert said == b""
    long = post(port, b"x", **{"X-Long": "x" * 50_000})
    assert long == (200, b"x")


def test_a_client_that_leaves_early_reaches_nothing() -> None:
    called = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        called.append(scope)

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        called.append(message)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"host", b"localhost:1")]}
    asyncio.run(HttpGuard(app, access=Access(host=LOOPBACK, port=1))(scope, receive, send))
    assert called == []
    socket_scope = {"type": "websocket", "path": "/", "headers": [(b"host", b"localhost:1"), (b"origin", b"http://e")]}
    asyncio.run(HttpGuard(app, access=Access(host=LOOPBACK, port=1))(socket_scope, receive, send))
    assert called == [{"type": "websocket.close", "code": 1008}]


def test_a_port_that_cannot_be_had_is_one_sentence_with_the_setting() -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        for host in (LOOPBACK, "0.0.0.0", "localhost"):
            with pytest.raises(AddressInUse, match=rf":{port}: Address already in use; choose another --port$"):
                check_port(host, port, host_setting="--host", port_setting="--port")
    check_port(LOOPBACK, port, host_setting="--host", port_setting="--port")
    with pytest.raises(AddressInUse, match="choose host=, an address of this machine"):
        check_port("203.0.113.7", port, host_setting="host=", port_setting="port=")
    with pytest.raises(AddressInUse, match="--port 99999 is no port"):
        check_port(LOOPBACK, 99999, host_setting="--host", port_setting="--port")


def test_options_after_two_dashes_are_vllms() -> None:
    assert split(["RUN", "--port", "8001", "--", "--seed", "3"]) == (["RUN", "--port", "8001"], ["--seed", "3"])
    assert split(["RUN"]) == (["RUN"], [])
    check_options(["--seed", "3", "--headless", "--pooler-config", "{}", "--ssl-keyfile", "f", "--config-format", "hf"])


@pytest.mark.parametrize(
    "word",
    ["--host", "--host=0.0.0.0", "--hos", "--port=1", "--por", "--uds", "--grpc_port=3", "--config", "--config=f"],
)
def test_options_that_would_open_the_server_are_refused(word: str) -> None:
    with pytest.raises(ServeRefused, match=re.escape(word)):
        check_options(["--seed", "3", word, "0.0.0.0"])


def test_a_key_comes_from_the_environment_or_from_vllms_option() -> None:
    assert keys([], {"VLLM_API_KEY": "k\n"}) == ("k",)
    assert keys(["--api-key", "a", "b", "--seed", "3"], {"VLLM_API_KEY": "k"}) == ("a", "b")
    assert keys(["--api_key=a"], {}) == ("a",)
    assert access("0.0.0.0", 8000, ["--api-key", "a"], {}).tokens == ("a",)
    for more in ([], ["--api-key"], ["--seed", "3"]):
        with pytest.raises(ServeRefused, match=r"VLLM_API_KEY.*--api-key"):
            access("0.0.0.0", 8000, more, {})
    assert access(LOOPBACK, 8000, [], {}).check_origin
    assert not access(LOOPBACK, 8000, ["--allowed-origins", '["https://app.example"]'], {}).check_origin


def test_vllm_gets_the_check_with_the_documented_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from conf.load import load, to_yaml
    from conf.schema.root import TrainConfig
    from operate.served import ServedGuard

    run = tmp_path / "mine"
    (run / "checkpoints" / "step-000002" / "policy").mkdir(parents=True)
    (run / "checkpoints" / "step-000002" / "MANIFEST.json").write_text("{}")
    (run / "config.yaml").write_text(to_yaml(load(TrainConfig, "train", ["experiment=quickstart"])))
    started: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr("os.execve", lambda _, line, environment: started.append((line, environment)))
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(sys, "argv", ["serve", str(run), "--port", str(port), "--", "--seed", "3"])
        assert serve.main() == 1
        assert capsys.readouterr().err.count("\n") == 1
    serve.main()
    ((line, environment),) = started
    assert line[-2:] == ["--seed", "3"]
    assert line[line.index("--middleware") + 1] == "operate.served.ServedGuard"
    assert json.loads(environment[serve.GUARDED])["port"] == port
    monkeypatch.setenv(serve.GUARDED, environment[serve.GUARDED])
    assert ServedGuard(echo)._access == Access(host=LOOPBACK, port=port, open_paths=("/health",))
