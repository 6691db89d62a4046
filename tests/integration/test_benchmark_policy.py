"""Benchmarks of a policy, with real Ray and vLLM: killed in the middle, continued by the same command."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
QUESTIONS, N = 40, 3
LIMIT_S = 400.0


def command(folder: Path) -> list[str]:
    settings = (
        f"data.root={folder / 'demo'} data.warmup_size=200 data.train_size=200 data.heldout_size=64 "
        f"limit={QUESTIONS} prompt.max_tokens=1500 model.path={folder / 'policy'} sampling.n={N} "
        f"sampling.max_tokens=64 engine.kv_cache_gib=0.5 engine.max_num_seqs=8 output={folder / 'run'}"
    )
    return [sys.executable, "-m", "benchmarks.demo", *settings.split()]


def records(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.is_file() else []


def test_a_killed_run_continues_where_it_was(tiny_policy: Path, tmp_path: Path) -> None:
    policy = Path(shutil.copytree(tiny_policy, tmp_path / "policy"))
    (policy / "chat_template.jinja").write_text("{% for message in messages %}{{ message.content }}\n{% endfor %}")
    progress = tmp_path / "run" / "generations.jsonl"
    with (tmp_path / "log").open("w") as log:
        first = subprocess.Popen(command(tmp_path), cwd=ROOT, stdout=log, stderr=log)
        deadline = time.monotonic() + LIMIT_S
        while len(records(progress)) < 4:
            assert first.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, "no question was answered in time"
            time.sleep(0.1)
        first.kill()
        first.wait()
    before = records(progress)
    assert len(before) < QUESTIONS
    progress.write_text("\n".join(before) + '\n{"key": 1')  # cut in the middle of a line
    second = subprocess.run(command(tmp_path), cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S)
    assert second.returncode == 0, second.stderr
    after = records(progress)
    assert after[: len(before)] == before
    answered = [json.loads(line) for line in after[1:]]
    assert sorted(record["key"] for record in answered) == list(range(QUESTIONS))
    assert all(len(record["completions"]) == N for record in answered)
    assert all(c["logprob"] < 0 and c["tokens"] > 0 for record in answered for c in record["completions"])
    assert len((tmp_path / "run" / "verdicts.jsonl").read_text().splitlines()) == QUESTIONS
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert scores["n"] == N
    assert scores["greedy"] is not None
    assert scores["tokens"]["completion"] > QUESTIONS * N
    assert scores["seconds"]["start"] > 0
