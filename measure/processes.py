"""Running a long command as a process of its own: its output goes to a log, Ctrl-C and SIGTERM end it gently, its time
is limited.

Not guaranteed: that processes which the command started end with it, where it is killed.
"""

import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from conf.errors import QuorumError

STOP_S = 120.0
"""Longest wait for a process that was told to stop: a run ends its actors and writes its summary."""


class RunFailed(QuorumError):
    """A process did not do what it was started for."""


def run_process(
    command: Sequence[str], *, name: str, log: Path, timeout_s: float, environment: Mapping[str, str] | None = None
) -> int:
    """The exit code. Raises RunFailed, which names the log, after `timeout_s`."""
    process = None
    with log.open("ab") as file, _ended_in_order():
        try:
            with _held():
                process = subprocess.Popen(
                    list(command),
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    # A Ctrl-C reaches this process alone, which passes it on: the run then ends its actors once.
                    start_new_session=True,
                )
            return process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise RunFailed(f"{name} took longer than {timeout_s:g} s: see {log}") from error
        finally:
            if process is not None:
                _stop(process)


@contextmanager
def _held() -> Iterator[None]:
    """Ctrl-C and SIGTERM in the middle of a start take effect when what was started can be ended."""
    came: list[int] = []
    before = {n: signal.signal(n, lambda number, _: came.append(number)) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for one in came:
        signal.raise_signal(one)


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """SIGTERM unwinds this process, in place of leaving its command behind."""
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """Ends a process that still goes, gently first."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGINT)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
