"""A checkpoint in use: vLLM's OpenAI server loads its policy, and a question is asked and answered.

The policy is a tiny Qwen2 with random weights: what it says is worth nothing, that the way is open is.
"""

import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest

from conf.load import load, to_yaml
from conf.schema.root import TrainConfig
from trainer.warmup.policy import tiny_policy
from trainer.warmup.tokenizer import train_tokenizer

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[2]
START_S = 400.0


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    config = load(TrainConfig, "train", ["experiment=quickstart", f"run.dir={folder.parent}", "run.name=tiny"])
    assert config.model.type == "tiny"
    policy = folder / "checkpoints" / "step-000001" / "policy"
    policy.mkdir(parents=True)
    texts = ["SELECT name FROM item WHERE price > 1", "how many items are there", "item: name TEXT, price REAL"] * 20
    tokenizer = train_tokenizer(texts, config.model.vocabulary, config.model.max_positions)
    tokenizer.save_pretrained(policy)
    tiny_policy(config.model, tokenizer, 0).save_pretrained(policy)
    (policy.parent / "MANIFEST.json").write_text("{}")
    (folder / "config.yaml").write_text(to_yaml(config))
    return folder


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", *arguments]


@dataclass(frozen=True)
class Server:
    port: int
    process: subprocess.Popen[bytes]
    log: Path


@pytest.fixture(scope="module", autouse=True)
def server(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Starts while the question is asked: vLLM takes one core for a quarter of a minute, twice."""
    log = tmp_path_factory.mktemp("server") / "log"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command("operate.serve", str(run), "--port", str(port)), cwd=ROOT, stdout=output, stderr=subprocess.STDOUT
        )
    yield Server(port, process, log)
    process.terminate()
    try:
        process.wait(60)
    finally:
        process.kill()


def test_a_question_is_answered_or_refused_in_one_sentence(run, tmp_path):
    connection = sqlite3.connect(tmp_path / "shop.sqlite")
    connection.executescript("CREATE TABLE item (name TEXT, price REAL); INSERT INTO item VALUES ('a', 1);")
    connection.close()
    before = (tmp_path / "shop.sqlite").read_bytes()
    done = subprocess.run(
        command("operate.ask", str(run), "--db", str(tmp_path / "shop.sqlite"), "--n", "4", "how many items"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"COLUMNS": "200"},
    )
    # Random weights write no query that runs: that is said, and nothing else goes wrong.
    assert done.returncode == 1, done.stdout + done.stderr
    assert "error: none of 4 candidates" in done.stderr
    assert (tmp_path / "shop.sqlite").read_bytes() == before


def test_vllms_server_loads_a_checkpoints_policy_and_completes_a_chat(server):
    limit = time.monotonic() + START_S
    while not _answers(server.port):
        assert server.process.poll() is None, server.log.read_text()[-2000:]
        assert time.monotonic() < limit, server.log.read_text()[-2000:]
        time.sleep(1)
    body = {"model": "tiny", "n": 3, "max_tokens": 8, "messages": [{"role": "user", "content": "how many items"}]}
    answer = _ask(server.port, "chat/completions", body)
    assert len(answer["choices"]) == 3
    assert answer["usage"]["completion_tokens"] > 0
    assert _ask(server.port, "models")["data"][0]["max_model_len"] == 256


def _answers(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def _ask(port: int, path: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = Request(f"http://127.0.0.1:{port}/v1/{path}", data=data, headers={"Content-Type": "application/json"})
    with urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())
