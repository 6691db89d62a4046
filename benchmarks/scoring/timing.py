"""Times right answers against their gold queries, for BIRD's efficiency scores.

Both queries run alternately in one process that does nothing else, after one untimed run each, so that neither pays for
a cold cache. The clock starts before SQLite prepares the statement and stops when the last row is fetched, in that
process: starting it and handing rows over cost nothing. The sandbox counts steps and bytes while it runs, which both
queries pay; where they take microseconds, this draws the ratio towards 1.
"""

import multiprocessing
import signal
import time
from multiprocessing.connection import Connection

from benchmarks.metrics.bird.efficiency import Efficiency, efficiency
from conf.schema.benchmark import BenchmarkExecution
from rewards.sql.query import Query
from rewards.sql.sandbox.run import Executor, Request

ATTEMPTS = 2
"""Processes that one comparison may be lost with."""
START_S = 60.0
PROCESSES = multiprocessing.get_context("spawn")

Times = tuple[list[float], list[float]]


class Stopwatch:
    """One timing process. Use as a context manager."""

    def __init__(self, config: BenchmarkExecution, repeats: int) -> None:
        self._budget = config.budget
        self._repeats = repeats
        self._start()

    def __enter__(self) -> "Stopwatch":
        return self

    def __exit__(self, *exc: object) -> None:
        self._end()

    def compare(self, database: str, gold: str, predicted: str) -> Efficiency | None:
        """None when one of the queries does not run to its end again."""
        requests = [
            Query(database=database, sql=sql, budget=self._budget, text_errors="strict").request()
            for sql in (gold, predicted)
        ]
        for _ in range(ATTEMPTS):
            try:
                self._pipe.send((requests, self._repeats))
                if self._pipe.poll(START_S + 2 * (self._repeats + 1) * self._budget.wall_s):
                    times: Times | None = self._pipe.recv()
                    return efficiency(*times) if times else None
            except (EOFError, OSError):
                pass  # the process was lost with the query: once more, on a new one
            self._end()
            self._start()
        return None

    def _start(self) -> None:
        self._pipe, theirs = PROCESSES.Pipe()
        self._process = PROCESSES.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def _end(self) -> None:
        self._pipe.close()
        self._process.join(timeout=1.0)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _serve(pipe: Connection) -> None:
    """The timing process: ends when the other end of the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal group: the parent decides
    executor = Executor()
    while True:
        try:
            requests, repeats = pipe.recv()
        except EOFError:
            return
        pipe.send(_times(executor, requests, repeats))


def _times(executor: Executor, requests: list[Request], repeats: int) -> Times | None:
    """Seconds of `repeats` runs of each of two queries; None when one of them fails."""
    times: Times = ([], [])
    for repeat in range(repeats + 1):
        for request, seconds in zip(requests, times, strict=True):
            started = time.perf_counter()
            answer = executor.answer(request)
            elapsed = time.perf_counter() - started
            if answer[0] != "ok":
                return None
            if repeat:
                seconds.append(elapsed)
    return times
