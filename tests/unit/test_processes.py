"""A benchmark's command as a process of its own: how it ends when the benchmark is told to."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

SCRIPT = """
import sys
from pathlib import Path
from measure.processes import run_process

run_process(["sleep", "600"], name="sleep", log=Path(sys.argv[1]), timeout_s=600)
"""


def only_child(parent: psutil.Process) -> psutil.Process:
    end = time.monotonic() + 30
    while not (children := parent.children()):
        assert time.monotonic() < end, "the command was not started"
        time.sleep(0.01)
    return children[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_ends_with_the_benchmark_that_started_it(tmp_path: Path, number: signal.Signals) -> None:
    # A shell in the background passes on that SIGINT is ignored; Python then leaves it so.
    command = ["env", "--default-signal=INT", sys.executable, "-c", SCRIPT, str(tmp_path / "log")]
    benchmark = subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=Path(__file__).parents[2])
    child = only_child(psutil.Process(benchmark.pid))
    benchmark.send_signal(number)
    assert benchmark.wait(timeout=30) in {-signal.SIGINT, 128 + signal.SIGTERM}
    assert not child.is_running()
