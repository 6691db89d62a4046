"""Feeds a batch of queries to executor processes until each has its execution, whatever becomes of the processes.

Who is to blame for a lost process: one that SIGPROF ended has used up its query's CPU seconds. The query is tried once
more alone with CPU_AGAIN times as many, since a loaded machine needs more of them for the same work, and is then a
`timeout`. A query that crashed two processes, the second of them alone, is a `runtime` error. Where a process was
silent for `wall_s` although CPU time was left, or was killed from outside, the query is retried alone on a fresh
process, and is `unscorable` when that is lost too. Then a harmless query is asked of the same database: when a process
answers it, the loss was the query's own doing, otherwise the infrastructure's.
"""

import selectors
import signal
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal, TypeVar, cast

from rewards.carriers import ErrorKind, Execution
from rewards.sql.query import Query
from rewards.sql.sandbox.run import Answer, Request
from rewards.sql.worker import Worker

BATCH = 16
"""Queries sent to a process at a time."""
START_S = 60.0
"""Longest wait for a new process to greet."""
LOST_LIMIT = 2
HARMLESS = "SELECT count(*) FROM sqlite_master"
CPU_AGAIN = 2
"""CPU and wall seconds of the second try of a query that used up its CPU seconds, in budgets."""
T = TypeVar("T")
CRASHES = frozenset((signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL))


@dataclass(kw_only=True, slots=True)
class Counts:
    """Of a pool, over all of its batches."""

    restarts: int = 0
    """Processes replaced after they were lost or killed."""
    events: int = 0
    """Grows with each answer and each lost process."""


@dataclass(kw_only=True, slots=True)
class Job:
    index: int
    query: Query
    request: Request
    crashes: int = 0
    lost: int = 0
    cpu_tries: int = 0
    """How often it used up its CPU seconds."""
    blamed: str | None = None
    """Why the query at `index` was given up: `query` is the harmless one that says whose doing it was."""

    @property
    def alone(self) -> bool:
        """Whether it goes without company: it has lost a process."""
        return self.lost > 0 or self.cpu_tries > 0

    @property
    def wall_s(self) -> float:
        """Longest silence of a process that works on it."""
        return self.query.budget.wall_s * (CPU_AGAIN if self.cpu_tries else 1)


@dataclass(slots=True)
class Seat:
    """A borrowed worker with the jobs that it was sent and has not answered."""

    worker: Worker
    jobs: deque[Job] = field(default_factory=deque)
    deadline: float = 0.0

    def rearm(self) -> None:
        wait = self.jobs[0].wall_s if self.worker.ready else START_S
        self.deadline = time.monotonic() + wait


class Outcome(Generic[T]):
    """What was made of the executions that have come."""

    def __init__(self, take: Callable[[int, Execution], T], count: int) -> None:
        self._take = take
        self._count = count
        self._taken: dict[int, T] = {}

    def put(self, index: int, execution: Execution) -> None:
        self._taken[index] = self._take(index, execution)

    def results(self) -> list[T]:
        return [self._taken[index] for index in range(self._count)]


class Dispatch:
    """Feeds one batch to borrowed workers until every query has its execution."""

    def __init__(self, counts: Counts, jobs: deque[Job], seats: list[Seat | None], outcome: Outcome[Any]) -> None:
        self._counts, self._jobs, self._seats, self._outcome = counts, jobs, seats, outcome
        self._failed_starts = 0

    def run(self) -> None:
        while True:
            for position in range(len(self._seats)):
                self._feed(position)
            busy = [p for p, seat in enumerate(self._seats) if seat is not None and seat.jobs]
            if not busy:
                return
            self._step(busy)

    def _feed(self, position: int) -> None:
        seat = self._seats[position]
        if not self._jobs or (seat is not None and seat.jobs):
            return
        batch = self._next_batch()
        heap_mib = batch[0].query.budget.heap_mib
        if seat is not None and seat.worker.heap_mib != heap_mib:  # SQLite's hard heap limit can only be lowered
            self._seats[position] = None
            seat.worker.close()
            seat = None
        if seat is None:
            try:
                seat = self._seats[position] = Seat(Worker(heap_mib))
            except OSError as error:
                for job in batch:
                    self._give_up(job, f"no SQL executor can be started: {error}")
                return
        seat.jobs.extend(batch)
        seat.worker.send([job.request for job in batch])
        seat.rearm()

    def _next_batch(self) -> list[Job]:
        """Jobs of one heap size; a job that lost a process goes alone."""
        share = max(1, min(BATCH, len(self._jobs) // (2 * len(self._seats))))
        batch = [self._jobs.popleft()]
        while self._jobs and len(batch) < share and not batch[0].alone:
            follower = self._jobs[0]
            if follower.alone or follower.query.budget.heap_mib != batch[0].query.budget.heap_mib:
                break
            batch.append(self._jobs.popleft())
        return batch

    def _step(self, busy: list[int]) -> None:
        """Wait for the next thing to happen to a busy worker, and deal with it."""
        with selectors.DefaultSelector() as selector:
            for position in busy:
                seat = self._seats[position]
                assert seat is not None
                selector.register(seat.worker.stdout, selectors.EVENT_READ, position)
                if seat.worker.writing:
                    selector.register(seat.worker.stdin, selectors.EVENT_WRITE, position)
            soonest = min(seat.deadline for seat in self._seats if seat is not None and seat.jobs)
            events = selector.select(max(0.0, soonest - time.monotonic()))
            looked = time.monotonic()
        heard = {key.data for key, mask in events if mask & selectors.EVENT_READ}
        for key, mask in events:
            seat = self._seats[key.data]
            if seat is None:
                continue
            if mask & selectors.EVENT_WRITE:
                seat.worker.flush()
            else:
                self._hear(key.data, seat)
        # As of the look: what `take` does with the answers of one process is not the silence of another.
        for position in busy:
            seat = self._seats[position]
            if position not in heard and seat is not None and seat.jobs and looked > seat.deadline:
                self._lost(position, seat, silent=True)

    def _hear(self, position: int, seat: Seat) -> None:
        answers = seat.worker.receive()
        if answers is None:
            self._lost(position, seat, silent=False)
            return
        for answer in answers:
            job = seat.jobs.popleft()
            self._outcome.put(job.index, _execution(answer) if job.blamed is None else _own_doing(job.blamed, answer))
        self._counts.events += len(answers)
        if seat.worker.ready:
            self._failed_starts = 0
        if seat.jobs:
            seat.rearm()

    def _lost(self, position: int, seat: Seat, *, silent: bool) -> None:
        """Replace a lost process: its current query is judged, the queries behind it go back to the queue."""
        self._seats[position] = None
        self._counts.restarts += 1
        self._counts.events += 1
        code = seat.worker.bury(kill=silent)
        if not seat.worker.ready:
            self._failed_starts += 1
            if self._failed_starts > LOST_LIMIT:
                for job in seat.jobs:
                    self._give_up(job, f"the SQL executor does not start (exit code {code})")
                return
            self._jobs.extendleft(reversed(seat.jobs))
            return
        job = seat.jobs.popleft()
        self._jobs.extendleft(reversed(seat.jobs))
        if job.blamed is not None:
            self._give_up(job, job.blamed)
            return
        if code == -signal.SIGPROF:
            job.cpu_tries += 1
            if job.cpu_tries == 1:
                job.request = job.query.request_for(job.request[0], cpu_budgets=CPU_AGAIN)
                self._jobs.append(job)
                return
            message = f"out of the CPU budget of {job.query.budget.cpu_s:g} s, twice"
            self._outcome.put(job.index, Execution(status="error", error_kind="timeout", error=message))
            return
        job.lost += 1
        job.crashes += -code in CRASHES
        if job.crashes == LOST_LIMIT:
            message = f"SQLite crashed on this query (signal {-code})"
            self._outcome.put(job.index, Execution(status="error", error_kind="runtime", error=message))
        elif job.lost == LOST_LIMIT:
            cause = f"silent for {job.wall_s:g} s" if silent else f"ended with code {code}"
            self._ask_harmless(job, f"the SQL executor was lost twice (the last time {cause})")
        else:
            self._jobs.append(job)

    def _ask_harmless(self, job: Job, reason: str) -> None:
        """Whether the query that lost its process each time is to blame shows in whether another is answered."""
        harmless = replace(job.query, sql=HARMLESS, reverse_unordered=False)
        request = harmless.request_for(job.request[0])
        self._jobs.append(Job(index=job.index, query=harmless, request=request, lost=job.lost, blamed=reason))

    def _give_up(self, job: Job, reason: str) -> None:
        self._outcome.put(job.index, Execution(status="unscorable", error=reason))


def _own_doing(reason: str, harmless: Answer) -> Execution:
    """A query that lost its process each time, with what the same database then answered to a harmless one."""
    return Execution(status="unscorable", error=reason, own_doing=harmless[0] != "unscorable")


def _execution(answer: Answer) -> Execution:
    status, columns, rows, kind, message, steps = answer
    return Execution(
        status=cast(Literal["ok", "error", "unscorable"], status),
        columns=columns,
        rows=rows,
        error_kind=cast(ErrorKind | None, kind),
        error=message,
        vm_steps=steps,
    )
