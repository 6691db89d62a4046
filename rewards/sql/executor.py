"""Runs SQL on SQLite databases in a pool of disposable processes.

Guarantees: `run` answers every query, in order, and raises nothing for what a query does; databases are never written;
a process that hangs, crashes or grows beyond its limits is replaced and costs the other queries nothing
(rewards/sql/dispatch.py says who is to blame for a lost one). Budgets are deterministic first (rewards/sql/sandbox), so
a verdict does not depend on the machine's load. A clock that queries read stands still at the budget's `clock`.

Who waits for whom: a caller of `run` holds executors until its batch is done; other callers wait for one to come free,
at most BUSY_S seconds.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from rewards.carriers import Execution
from rewards.sql.dispatch import Counts, Dispatch, Job, Outcome, Seat
from rewards.sql.query import Query
from rewards.sql.snapshot import DatabaseUnreadable
from rewards.sql.worker import Worker

BUSY_S = 900.0
T = TypeVar("T")


class ExecutorsBusy(Exception):
    """No executor came free within BUSY_S seconds."""


class ExecutorPool:
    """`size` executor processes, started when first needed. Use as a context manager, or `close()`."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._counts = Counts()
        self._idle: list[Worker | None] = [None] * size
        self._free = threading.Condition()
        self._closed = False

    @property
    def restarts(self) -> int:
        """Processes replaced after they were lost or killed."""
        return self._counts.restarts

    @property
    def events(self) -> int:
        """Grows with each answer and each lost process, so that others see a long `run` go on."""
        return self._counts.events

    def __enter__(self) -> "ExecutorPool":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def run(self, queries: Sequence[Query]) -> list[Execution]:
        """One execution a query, in order; all their rows are held at once. Thread-safe. Raises ExecutorsBusy, and
        RuntimeError after `close`."""
        return self.each(queries, lambda index, execution: execution)

    def each(self, queries: Sequence[Query], take: Callable[[int, Execution], T]) -> list[T]:
        """What `take(index, execution)` makes of each execution, in the order of the queries.

        `take` is called once a query, in this thread, in the order in which executions come; what it does not return of
        an execution is not kept, so that a batch holds no more rows than it is working on. Raises as `run` does, and
        what `take` raises.

        >>> with ExecutorPool(1) as pool:
        ...     counts = pool.each(queries, lambda index, execution: len(execution.rows))
        """
        outcome = Outcome(take, len(queries))
        jobs: deque[Job] = deque()
        for index, query in enumerate(queries):
            refusal = query.refusal()
            if refusal is not None:
                outcome.put(index, refusal)
                continue
            try:
                jobs.append(Job(index=index, query=query, request=query.request()))
            except DatabaseUnreadable as error:
                outcome.put(index, Execution(status="unscorable", error=str(error)))
        if jobs:
            with self._borrowed(len(jobs)) as seats:
                Dispatch(self._counts, jobs, seats, outcome).run()
        return outcome.results()

    def pids(self) -> tuple[int, ...]:
        """Process ids of the executors that nobody uses at the moment."""
        with self._free:
            return tuple(worker.pid for worker in self._idle if worker is not None)

    def close(self) -> None:
        """End all processes. Callers still in `run` end theirs when they come back."""
        with self._free:
            self._closed = True
            idle, self._idle = self._idle, []
            self._free.notify_all()
        for worker in idle:
            if worker is not None:
                worker.close()

    @contextmanager
    def _borrowed(self, jobs: int) -> Iterator[list[Seat | None]]:
        with self._free:
            if not self._free.wait_for(lambda: self._idle or self._closed, timeout=BUSY_S):
                raise ExecutorsBusy(f"none of the {self.size} SQL executors came free within {BUSY_S:.0f} s")
            if self._closed:
                raise RuntimeError("the executor pool is closed")
            count = min(len(self._idle), jobs)
            # Processes that already run come first.
            self._idle.sort(key=lambda worker: worker is not None)
            taken = [self._idle.pop() for _ in range(count)]
        seats = [Seat(worker) if worker is not None else None for worker in taken]
        try:
            yield seats
        finally:
            self._return([seat.worker if seat is not None else None for seat in map(_settled, seats)])

    def _return(self, workers: list[Worker | None]) -> None:
        with self._free:
            closed = self._closed
            if not closed:
                self._idle.extend(workers)
            self._free.notify_all()
        if closed:
            for worker in workers:
                if worker is not None:
                    worker.close()


def _settled(seat: Seat | None) -> Seat | None:
    """A worker left in the middle of its batch (an interrupted caller) has answers under way that nobody wants."""
    if seat is not None and seat.jobs:
        seat.worker.bury()
        return None
    return seat
