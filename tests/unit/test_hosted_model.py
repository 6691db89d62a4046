"""A hosted model asked over HTTP: retries, rate, resumption, costs, refusals; against a real local server."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from benchmarks.carriers import Answers, BenchmarkError, Question
from benchmarks.generation import hosted
from conf.errors import ConfigError
from conf.load import load
from conf.schema.benchmark import BirdBenchmark, ModelSource

Reply = tuple[int, dict[str, Any], dict[str, str]]
Serve = Callable[[Callable[[int, dict[str, Any]], Reply]], "Server"]


class Server:
    """Answers each POST with what `reply(number of the request, body)` says, and remembers bodies and headers."""

    def __init__(self, reply: Callable[[int, dict[str, Any]], Reply]) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.times: list[float] = []
        lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with lock:
                    number = len(server.bodies)
                    server.bodies.append(body)
                    server.keys.append(self.headers["authorization"])
                    server.times.append(time.monotonic())
                status, answer, headers = reply(number, body)
                payload = json.dumps(answer).encode()
                self.send_response(status)
                for name, value in {**headers, "content-length": str(len(payload))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


def choices(body: dict[str, Any], most: int = 100) -> Reply:
    texts = [f"<think>easy</think>SELECT {i}" for i in range(min(most, body.get("n", 1)))]
    usage = {"prompt_tokens": 50, "completion_tokens": 7 * len(texts)}
    return 200, {"choices": [{"message": {"content": text}} for text in texts], "usage": usage}, {}


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[Server] = []

    def start(reply: Callable[[int, dict[str, Any]], Reply]) -> Server:
        servers.append(Server(reply))
        return servers[-1]

    yield start
    for server in servers:
        server.http.shutdown()
        server.http.server_close()


@pytest.fixture
def questions(tmp_path: Path) -> tuple[Question, ...]:
    file = tmp_path / "pets.sqlite"
    connection = sqlite3.connect(file)
    connection.execute("CREATE TABLE pet (id INTEGER PRIMARY KEY, name TEXT)")
    connection.commit()
    connection.close()
    return tuple(
        Question(
            position=i,
            key=10 + i,
            db_id="pets",
            question=f"How many pets, {i}?",
            evidence="a hint",
            gold="SELECT count(*) FROM pet",
            databases=(str(file),),
        )
        for i in range(3)
    )


def run(server: Server, questions: tuple[Question, ...], output: Path, *settings: str) -> Answers:
    output.mkdir(exist_ok=True)
    config = load(
        BirdBenchmark,
        "benchmark_bird",
        [
            "data.root=unused",
            f"output={output}",
            f"model.api={server.url}",
            "model.name=big",
            "model.requests_per_minute=60000",
            "sampling.n=4",
            *settings,
        ],
    )
    return hosted.ask(config, questions, "bird", output)


def test_candidates_greedy_and_costs(
    serve: Serve, questions: tuple[Question, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    server = serve(lambda number, body: choices(body))
    answers = run(server, questions, tmp_path / "out")
    assert [a.candidates for a in answers.answers] == [("SELECT 0", "SELECT 1", "SELECT 2", "SELECT 3")] * 3
    assert [a.greedy for a in answers.answers] == ["SELECT 0"] * 3
    assert (answers.requests, answers.answers[0].prompt_tokens, answers.answers[0].completion_tokens) == (6, 100, 35)
    assert set(server.keys) == {"Bearer secret"}
    user = server.bodies[0]["messages"][1]["content"]
    assert "pet" in user
    assert "a hint" in user
    assert {body["temperature"] for body in server.bodies} == {0.0, 1.0}
    assert "secret" not in (tmp_path / "out" / "generations.jsonl").read_text()


def test_a_server_that_gives_fewer_choices_is_asked_again(
    serve: Serve, questions: tuple[Question, ...], tmp_path: Path
) -> None:
    server = serve(lambda number, body: choices(body, most=3))
    answers = run(server, questions[:1], tmp_path / "out", "sampling.greedy=false")
    assert len(answers.answers[0].candidates) == 4
    assert [body.get("n", 1) for body in server.bodies] == [4, 1]
    single = serve(lambda number, body: choices(body))
    run(single, questions[:1], tmp_path / "single", "sampling.greedy=false", "model.batch_choices=false")
    assert [body.get("n", 1) for body in single.bodies] == [1, 1, 1, 1]


def test_passing_failures_are_repeated(
    serve: Serve, questions: tuple[Question, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosted, "FIRST_PAUSE_S", 0.01)
    failures = [(429, {"error": "slow down"}, {"retry-after": "0.2"}), (503, {"error": "busy"}, {})]
    server = serve(lambda number, body: failures[number] if number < 2 else choices(body))
    answers = run(server, questions[:1], tmp_path / "out", "sampling.greedy=false")
    assert answers.requests == 3
    assert server.times[1] - server.times[0] >= 0.2


def test_a_lasting_failure_ends_the_run_and_the_same_command_continues(
    serve: Serve, questions: tuple[Question, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosted, "FIRST_PAUSE_S", 0.01)
    settings = ("sampling.greedy=false", "model.concurrency=1", "model.retries=1")
    broken = serve(lambda number, body: choices(body) if number < 2 else (500, {"error": "down"}, {}))
    with pytest.raises(BenchmarkError, match=r"did not answer after 2 requests.*continues after 2 questions"):
        run(broken, questions, tmp_path / "out", *settings)
    progress = tmp_path / "out" / "generations.jsonl"
    lines = progress.read_text().splitlines()
    header = json.loads(lines[0])
    progress.write_text("\n".join(lines[:2]) + '\n{"key": 11, "compl')  # as a kill in the middle of a line leaves it
    healed = serve(lambda number, body: choices(body))
    header["made_with"]["model"] = f"{healed.url} big"
    progress.write_text(progress.read_text().replace(lines[0], json.dumps(header)))
    answers = run(healed, questions, tmp_path / "out", *settings)
    assert len(answers.answers) == 3
    assert len(healed.bodies) == 2
    with pytest.raises(BenchmarkError, match=r"other settings \(sampling\)"):
        run(healed, questions, tmp_path / "out", *settings, "sampling.temperature=0.5")


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "refused the key in the environment variable OPENAI_API_KEY"),
        (400, "model.batch_choices=false"),
        (404, "refused the request"),
    ],
)
def test_refusals(status: int, message: str, serve: Serve, questions: tuple[Question, ...], tmp_path: Path) -> None:
    server = serve(lambda number, body: (status, {"error": "no"}, {}))
    with pytest.raises(BenchmarkError, match=message):
        run(server, questions, tmp_path / "out", "model.concurrency=1")
    assert len(server.bodies) == 1


def test_requests_keep_their_distance(serve: Serve, questions: tuple[Question, ...], tmp_path: Path) -> None:
    server = serve(lambda number, body: choices(body))
    started = time.monotonic()
    run(server, questions, tmp_path / "out", "model.requests_per_minute=600")
    assert len(server.times) == 6
    assert all(at - started >= 0.1 * place for place, at in enumerate(server.times))


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ({"error": {"message": "overloaded"}}, "a reply with choices expected, found .*overloaded"),
        ({"choices": []}, "a reply with choices expected"),
        ({"choices": ["SELECT 1"]}, "choices with a message and its text expected"),
        ({"choices": [{"message": {"content": 7}}]}, "choices with a message and its text expected"),
        (["SELECT 1"], "a JSON object expected, found list"),
    ],
)
def test_replies_of_another_protocol(
    reply: Any, message: str, serve: Serve, questions: tuple[Question, ...], tmp_path: Path
) -> None:
    server = serve(lambda number, body: (200, reply, {}))
    with pytest.raises(BenchmarkError, match=message):
        run(server, questions, tmp_path / "out", "model.concurrency=1")


def test_silence_and_missing_counts_are_no_errors(
    serve: Serve, questions: tuple[Question, ...], tmp_path: Path
) -> None:
    reply = {"choices": [{"message": {"content": None}}], "usage": {"prompt_tokens": None}}
    server = serve(lambda number, body: (200, reply, {}))
    settings = ("sampling.n=1", "sampling.greedy=false", "model.budget_name=max_completion_tokens")
    answers = run(server, questions[:1], tmp_path / "out", *settings)
    assert answers.answers[0].candidates == ("no answer",)
    assert (answers.answers[0].prompt_tokens, answers.answers[0].completion_tokens) == (0, 0)
    assert server.bodies[0]["max_completion_tokens"] == 2048
    assert "max_tokens" not in server.bodies[0]


def test_a_url_without_its_scheme_is_a_wrong_setting() -> None:
    settings = ["data.root=x", "output=y", "model.api=localhost:8000/v1", "model.name=big"]
    with pytest.raises(ConfigError, match="model.api.*for instance https://localhost:8000/v1"):
        load(BirdBenchmark, "benchmark_bird", settings)


@pytest.mark.parametrize(
    "api", ["https://", "http:///v1", "https://h:99999/v1", "https://h:port/v1", "https://[::1/v1"]
)
def test_an_address_that_no_host_has_is_a_wrong_setting(api: str) -> None:
    with pytest.raises(ConfigError, match="model.api: an address of a host"):
        load(BirdBenchmark, "benchmark_bird", ["data.root=x", "output=y", f"model.api='{api}'", "model.name=big"])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HTTPS_PROXY", "socks5://me:hunter2@proxy:1080"),
        ("HTTPS_PROXY", "ftp://me:hunter2@proxy:1080"),
        ("ALL_PROXY", "http://me:hunter2/x@proxy:1080"),
        ("SSL_CERT_FILE", "/no/hunter2.pem"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_one_sentence_without_its_password(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(BenchmarkError, match="a proxy or the certificates that the environment names") as caught:
        hosted._client(ModelSource(api="https://host/v1", name="m"), {})
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_body_that_cannot_be_decoded_is_asked_for_again(
    serve: Serve, questions: tuple[Question, ...], tmp_path: Path
) -> None:
    server = serve(lambda number, body: (200, choices(body)[1], {"content-encoding": "gzip"}))
    with pytest.raises(BenchmarkError, match="did not answer after 1 requests, the last: DecodingError"):
        run(server, questions[:1], tmp_path / "out", "model.retries=0")


@pytest.mark.integration
def test_ctrl_c_and_the_same_command_again(serve: Serve, questions: tuple[Question, ...], tmp_path: Path) -> None:
    root, output = tmp_path / "bird", tmp_path / "out"
    (root / "dev_databases" / "pets").mkdir(parents=True)
    shutil.copy(questions[0].databases[0], root / "dev_databases" / "pets" / "pets.sqlite")
    entries = [
        {"question_id": i, "db_id": "pets", "question": f"How many pets, {i}?", "SQL": "SELECT count(*) FROM pet"}
        for i in range(12)
    ]
    (root / "dev.json").write_text(json.dumps(entries))

    def slowly(number: int, body: dict[str, Any]) -> Reply:
        time.sleep(0.15)
        return choices(body)

    server = serve(slowly)
    settings = (
        f"data.root={root} output={output} model.api={server.url} model.name=big model.requests_per_minute=60000 "
        "model.concurrency=1 sampling.n=2 sampling.greedy=false execution.executors=1"
    )
    command = [sys.executable, "-m", "benchmarks.bird", *settings.split()]
    environment = {**os.environ, "OPENAI_API_KEY": "a-secret-key"}
    repository = Path(__file__).resolve().parents[2]
    # A test run in the background passes on that SIGINT is ignored.
    first = subprocess.Popen(
        command,
        cwd=repository,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    progress = output / "generations.jsonl"
    while not progress.is_file() or progress.read_text().count("\n") < 4:
        assert time.monotonic() < deadline, "no question was answered in time"
        time.sleep(0.02)
    first.send_signal(signal.SIGINT)
    _, errors = first.communicate(timeout=60)
    assert (first.returncode, errors.splitlines()[-1]) == (130, "interrupted")
    answered = progress.read_text().count("\n") - 1
    assert answered < 12
    second = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, timeout=60)
    assert second.returncode == 0, second.stderr
    assert len(server.bodies) <= 12 + 1  # the one that was interrupted
    assert "600 prompt tokens and 168 completion tokens in 12 requests" in second.stdout
    assert set(server.keys) == {"Bearer a-secret-key"}
    for file in output.rglob("*"):
        assert file.is_dir() or "a-secret-key" not in file.read_text(), file
