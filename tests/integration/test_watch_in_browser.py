"""The live page in a real browser: it renews itself, keeps what the reader opened, and fits a phone."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from records.run_folder import RunFolder

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]


@pytest.fixture
def watched(tmp_path: Path, make_run) -> Iterator[tuple[Path, str, subprocess.Popen[str]]]:
    path = make_run(tmp_path / "run", steps=20, asked=60, finished=False)
    command = [sys.executable, "-m", "operate.watch", str(path), "--web", "--port", "0"]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    yield path, process.stdout.readline().split()[0], process
    process.kill()
    process.wait(timeout=10)


@pytest.mark.parametrize("width", [390, 1280])
def test_the_live_page_renews_itself(browser, watched: tuple[Path, str, subprocess.Popen[str]], width: int) -> None:
    path, url, process = watched
    assert url.startswith("http://127.0.0.1:")
    browser.open(url, width=width)
    browser.wait("document.getElementById('connection').textContent.startsWith('Live')")
    assert browser.js("document.querySelectorAll('.chart').length") > 10
    assert browser.js("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    assert "20 of 60" in browser.js("document.querySelector('header').textContent")
    browser.js("document.querySelector('.group').open = true, 0")
    opened = browser.js("document.querySelector('.group').dataset.key")

    with RunFolder(path, resume=True) as folder:
        folder.write({"step": 21, "version": 21, "reward/total/mean": 2.5, "perf/generate_s": 2.0})
        browser.wait("document.querySelector('header').textContent.includes('21 of 60')")
        browser.wait("document.querySelector('.status').textContent === 'running'")
    browser.js("document.querySelector('.chart svg').focus(), 0")
    browser.js(
        "document.querySelector('.chart svg').dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowLeft'})), 0"
    )
    assert browser.js("document.querySelector('.chart .at').textContent") == "step 20"
    assert browser.js(f"document.querySelector('[data-key=\"{opened}\"]').open")
    assert browser.problems == []

    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 130
    browser.wait("document.getElementById('connection').textContent.startsWith('No answer')")


def test_the_server_of_a_missing_run_ends_with_one_sentence(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "operate.watch", str(tmp_path), "--web"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert ended.stderr == f"error: {tmp_path} is no run folder: it holds no metrics.jsonl\n"
