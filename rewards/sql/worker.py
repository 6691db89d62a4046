"""The parent's end of one executor process: non-blocking frames over its pipes.

Nobody blocks here: `flush` and `receive` do what the pipes allow at once, and the pool's selector says when. The pool
kills and replaces; this class only starts, speaks and buries one child. The child ends by itself when its stdin closes,
so a killed parent leaves none behind.
"""

import marshal
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from rewards.sql.sandbox.run import Answer, Request

ROOT = Path(__file__).resolve().parents[2]
COMMAND = "import sys; sys.path.append(sys.argv[1]); from rewards.sql.sandbox.main import main; main(int(sys.argv[2]))"
READ_BYTES = 2**20
ENVIRONMENT = {
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",  # what localtime means, on every machine
    # Large blocks go back to the system when they are freed, so one huge result does not stay in the process.
    "MALLOC_MMAP_THRESHOLD_": "262144",
    "MALLOC_TRIM_THRESHOLD_": "1048576",
    "MALLOC_ARENA_MAX": "1",
}


class Worker:
    """One executor process with a SQLite heap of `heap_mib` MiB. Raises OSError when no process can be started."""

    def __init__(self, heap_mib: int) -> None:
        self.heap_mib = heap_mib
        self.ready = False
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", COMMAND, str(ROOT), str(heap_mib)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**ENVIRONMENT, **{k: v for k, v in os.environ.items() if k == "LD_LIBRARY_PATH"}},
        )
        self.stdin, self.stdout = _pipe(self._process.stdin), _pipe(self._process.stdout)
        self._outgoing = b""
        self._incoming = bytearray()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def writing(self) -> bool:
        return bool(self._outgoing)

    def send(self, requests: Sequence[Request]) -> None:
        """Queue one frame. The worker must have answered everything before."""
        payload = marshal.dumps(list(requests))
        self._outgoing += len(payload).to_bytes(8, "little") + payload

    def flush(self) -> None:
        """Write what the pipe takes now. A closed pipe is not an error here: `receive` reports the death."""
        try:
            written = os.write(self.stdin.fileno(), self._outgoing[:READ_BYTES])
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._outgoing = b""
            return
        self._outgoing = self._outgoing[written:]

    def receive(self) -> list[Answer] | None:
        """Answers that are complete by now; None when the process has ended."""
        try:
            data = os.read(self.stdout.fileno(), READ_BYTES)
        except BlockingIOError:
            return []
        if not data:
            return None
        self._incoming += data
        answers = []
        while len(self._incoming) >= 8:
            end = 8 + int.from_bytes(self._incoming[:8], "little")
            if len(self._incoming) < end:
                break
            payload = marshal.loads(memoryview(self._incoming)[8:end].tobytes())
            del self._incoming[:end]
            if self.ready:
                answers.append(payload)
            self.ready = True  # the first frame is the child's greeting
        return answers

    def bury(self, *, kill: bool = True) -> int:
        """End and reap the process; its exit code (negative: the signal that ended it)."""
        if kill:
            self._process.send_signal(signal.SIGKILL)
        self.stdin.close()
        code = self._process.wait(timeout=30)
        self.stdout.close()
        return code

    def close(self, patience_s: float = 1.0) -> None:
        """Let the process end by itself, or kill it after `patience_s` seconds."""
        self.stdin.close()
        deadline = time.monotonic() + patience_s
        while self._process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        self.bury(kill=self._process.poll() is None)


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise RuntimeError("the executor was started without pipes")
    os.set_blocking(stream.fileno(), False)
    return stream
