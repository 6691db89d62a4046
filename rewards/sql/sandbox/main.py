"""The child's loop: frames in, answers out.

A frame is an eight-byte little-endian length and a marshal payload: a list of requests in; out, the SQLite version
once, then one answer a request, in order. End of input ends the process.
"""

import marshal
import os
import resource
import signal
import sqlite3
import sys

from rewards.sql.sandbox.run import Answer, Executor


def _confine(heap_mib: int) -> None:
    """Process-wide limits; the address space leaves room for a result in SQLite, in Python and on its way out."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal group: the parent decides
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    space = (512 + 3 * heap_mib) * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (space, space))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sqlite3.connect(":memory:").execute(f"PRAGMA hard_heap_limit={heap_mib * 2**20}").fetchone()


def main(heap_mib: int) -> None:
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    _confine(heap_mib)
    executor = Executor()

    def send(payload: str | Answer) -> None:
        frame = marshal.dumps(payload)
        sink.write(len(frame).to_bytes(8, "little"))
        sink.write(frame)
        sink.flush()

    try:
        send(sqlite3.sqlite_version)
        while header := source.read(8):
            for request in marshal.loads(source.read(int.from_bytes(header, "little"))):
                send(executor.answer(request))
    except BrokenPipeError:
        os._exit(0)  # the parent is gone
