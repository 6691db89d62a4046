"""What several files share: a headless Chromium, and one finished training run with its databases and warm-up."""

import base64
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

_SWITCHES = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
)
_LIMIT_S = 60.0
SCRIPT_RAN = "document.documentElement?.dataset.ready === 'yes'"


class Browser:
    """One page, driven through Chromium's debugging pipe: no driver package, no port.

    `size` emulates a screen, so that widths below a window's minimum are real.
    """

    def __init__(self, binary: str, profile: Path) -> None:
        from_us, to_browser = os.pipe()
        from_browser, to_us = os.pipe()
        # Chromium reads commands from descriptor 3 and answers on 4.
        shell = f'exec 3<&{from_us} 4>&{to_us}; exec "$0" "$@"'
        self._process = subprocess.Popen(
            ["/bin/bash", "-c", shell, binary, *_SWITCHES, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(from_us, to_us),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(from_us)
        os.close(to_us)
        self._out = os.fdopen(to_browser, "wb", buffering=0)
        self._in = os.fdopen(from_browser, "rb")
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        self.problems: list[str] = []
        """Uncaught exceptions, console errors and dialogs since the page was opened."""
        self._target: str | None = None

    def _message(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            if time.monotonic() > deadline:
                raise TimeoutError("chromium did not answer")
            chunk = os.read(self._in.fileno(), 1 << 16)
            if not chunk:
                raise ConnectionError("chromium ended")
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(line)

    def _new_page(self) -> None:
        """What the page before goes on doing is told under another session, and not noticed."""
        before, self._session = self._target, None
        self._target = self._call("Target.createTarget", url="about:blank")["targetId"]
        if before is not None:
            self._call("Target.closeTarget", targetId=before)
        self._session = self._call("Target.attachToTarget", targetId=self._target, flatten=True)["sessionId"]
        self.problems.clear()
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")

    def _notice(self, event: dict[str, Any]) -> None:
        if event.get("sessionId") != self._session:
            return
        method, values = event.get("method", ""), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.problems.append(values["exceptionDetails"]["exception"].get("description", "exception"))
        elif method == "Log.entryAdded" and values["entry"]["level"] == "error":
            self.problems.append(values["entry"]["text"])
        elif method == "Page.javascriptDialogOpening":
            self.problems.append(f"dialog: {values['message']}")

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        command: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session:
            command["sessionId"] = self._session
        self._out.write(json.dumps(command).encode() + b"\0")
        deadline = time.monotonic() + _LIMIT_S
        while (message := self._message(deadline)).get("id") != self._number:
            self._notice(message)
        assert "error" not in message, message
        return message["result"]

    def open(
        self, url: str, *, width: int = 1280, height: int = 900, dark: bool = False, ready: str = SCRIPT_RAN
    ) -> None:
        """Opens a new page on a screen of this size and waits until its script has run, or until `ready` holds."""
        self._new_page()
        self._call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])
        self._call("Page.navigate", url=url)
        self.wait(ready)

    def js(self, expression: str) -> Any:
        """The value of an expression in the page."""
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, condition: str, limit_s: float = 20.0) -> None:
        """Waits until an expression is true."""
        deadline = time.monotonic() + limit_s
        while not self.js(condition):
            assert time.monotonic() < deadline, f"{condition} stayed false for {limit_s} s; problems: {self.problems}"
            time.sleep(0.05)

    def screenshot(self, path: Path, *, full: bool = True) -> None:
        """A PNG of the whole page, or of what is in sight."""
        data = self._call("Page.captureScreenshot", captureBeyondViewport=full)["data"]
        path.write_bytes(base64.b64decode(data))

    def close(self) -> None:
        self._out.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(timeout=10)
        self._in.close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A headless Chromium; tests that need one are skipped where none is installed."""
    binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if binary is None:
        pytest.skip("no chromium on this machine")
    opened = Browser(binary, tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@dataclass(frozen=True)
class Runs:
    """Small training runs of one seed, real in every part."""

    place: Path
    steps: int = 10

    @property
    def shared(self) -> tuple[str, ...]:
        """Settings that let other commands use these databases and this warm-up."""
        return (f"data.root={self.place}/demo", f"warmup.cache={self.place}/warmup")

    def command(self, name: str, *overrides: str) -> list[str]:
        return [
            *(sys.executable, "-m", "trainer", "experiment=quickstart", f"run.dir={self.place}", f"run.name={name}"),
            *self.shared,
            *("data.warmup_size=400", "data.train_size=64", "data.heldout_size=12"),
            *("warmup.steps=40", "model.layers=2", f"pipeline.steps={self.steps}", "pipeline.prompts_per_step=4"),
            *("rollout.group_size=8", "evaluation.every=0", "evaluation.n=4"),
            *("checkpoint.every=2", "logging.samples_every=2"),
            # The precision in which engine and learner agree to 1e-4.
            *("learner.dtype=float32", "rollout.engine.dtype=float32"),
            *overrides,
        ]


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def finished(runs: Runs) -> Path:
    """The folder of a run that nothing has disturbed; other tests read it, none writes there."""
    answer = subprocess.run(runs.command("whole"), capture_output=True, text=True, timeout=420)
    assert answer.returncode == 0, answer.stdout[-2000:] + answer.stderr[-4000:]
    return runs.place / "whole"
