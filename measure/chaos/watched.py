"""A training run in a process of its own, seen from outside: its ledger, its log, its processes."""

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import psutil

from conf.errors import QuorumError

POLL_S = 0.02
WAIT_S = 0.2
STOP_S = 90.0
"""Longest wait for processes that should be gone; Ray's agents need a while to see that their head was killed."""


class TrialFailed(QuorumError):
    """A run did not do what it should have done after a fault."""


class TrainerRun:
    """A context manager; leaving it ends whatever the run has left behind."""

    def __init__(self, command: Sequence[str], *, folder: Path, log: Path, limit_s: float) -> None:
        """`folder`: the run folder. `limit_s`: longest wait for another step, or for anything else of the run."""
        self.folder = folder
        self.log = log
        self._command = list(command)
        self._limit_s = limit_s
        self._process: subprocess.Popen[bytes] | None = None
        self._seen: dict[int, psutil.Process] = {}

    def start(self, *settings: str) -> None:
        """Begins, or goes on with resume=auto among `settings`."""
        with self.log.open("ab") as file:
            self._process = subprocess.Popen(
                [*self._command, *settings],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
                start_new_session=True,
            )

    @property
    def process(self) -> psutil.Process:
        assert self._process is not None, "the run has not been started"
        return psutil.Process(self._process.pid)

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return None if self._process is None else self._process.poll()

    @property
    def step(self) -> int:
        """The last optimizer step in the ledger."""
        ledger = self.folder / "ledger.jsonl"
        if not ledger.is_file():
            return 0
        rows = ledger.read_bytes().splitlines(keepends=True)
        whole = [row for row in rows if row.endswith(b"\n")]
        return int(json.loads(whole[-1])["step"]) if whole else 0

    def said(self, text: str, *, since: int = 0) -> bool:
        """Whether the log holds `text` after its first `since` bytes."""
        return text in self.log.read_bytes()[since:].decode(errors="replace")

    def log_size(self) -> int:
        return self.log.stat().st_size

    def actors(self, title: str) -> list[psutil.Process]:
        """Live Ray actors of this class, of this run or of a cluster that this process has started."""
        return [each for each in self.descendants() if command_of(each).startswith(f"ray::{title}")]

    def executors(self) -> list[psutil.Process]:
        """SQLite processes of the reward actors."""
        children = [child for actor in self.actors("RewardActor") for child in _children(actor)]
        return [child for child in children if "rewards.sql.sandbox" in command_of(child)]

    def descendants(self) -> list[psutil.Process]:
        """All processes that come from this one, zombies left out."""
        self.remember()
        return [each for each in _children(psutil.Process()) if not _is_zombie(each)]

    def remember(self) -> None:
        """Notes the run's own processes, which must not outlive it."""
        if self.exit_code is None:
            self._seen.update({each.pid: each for each in _children(self.process)})

    def until(self, true: Callable[[], bool], what: str) -> float:
        """Seconds until it is true. Raises TrialFailed when the run ends before, or nothing happens in time."""
        begun = time.monotonic()
        while not true():
            if self.exit_code is not None and not true():
                raise TrialFailed(f"the run ended with exit code {self.exit_code} before {what}: see {self.log}")
            if time.monotonic() - begun > self._limit_s:
                raise TrialFailed(f"{what} was not seen within {self._limit_s:g} s: see {self.log}")
            time.sleep(POLL_S)
        return time.monotonic() - begun

    def wait(self) -> int:
        """The exit code. Raises TrialFailed when the run neither does another step nor ends in time."""
        assert self._process is not None
        step, since = self.step, time.monotonic()
        while (code := self._process.poll()) is None:
            if self.step != step:
                step, since = self.step, time.monotonic()
            if time.monotonic() - since > self._limit_s:
                raise TrialFailed(f"the run stood still for {self._limit_s:g} s after step {step}: see {self.log}")
            time.sleep(WAIT_S)
        return code

    def left_behind(self) -> list[str]:
        """Commands of the run's processes that are still there STOP_S after it ended; they are then killed."""
        _, alive = psutil.wait_procs(list(self._seen.values()), timeout=STOP_S)
        left = [each for each in alive if each.is_running() and not _is_zombie(each)]
        commands = [command_of(each)[:80] for each in left]
        for each in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        return commands

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self.remember()
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_S)
            self._process.kill()
            self._process.wait()
            self.left_behind()


def command_of(process: psutil.Process) -> str:
    """Its command line; empty for one that has ended."""
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _is_zombie(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
