"""Runs SQL on SQLite databases in a pool of disposable processes.

Guarantees: `run` answers every query, in order, and raises nothing for what a query does; databases are never written;
a process that hangs, crashes or grows beyond its limits is replaced and costs the other queries nothing. Budgets are
deterministic first (see rewards/sql/sandbox), so a verdict does not depend on the machine's load.

Whose fault a lost process is: ended by SIGPROF, its query used up its CPU seconds; it is tried once more alone with
CPU_AGAIN times as many, since a loaded machine needs more of them for the same work, and is then a `timeout`. Crashed
twice on the same query, alone the second time: `runtime`. Silent for `wall_s` although CPU time was left, or killed
from outside: the query is retried alone on a fresh process, and `unscorable` when that is lost too. Then a harmless
query is asked of the same database: when a process answers it, the loss was the query's own doing, otherwise the
infrastructure's.
A clock that queries read stands still at the budget's `clock`.

Who waits for whom: a caller of `run` holds executors until its batch is done; other callers wait for one to come free,
at most BUSY_S seconds.
"""

import selectors
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal, TypeVar, cast

from conf.schema.reward import BudgetConfig
from rewards.carriers import ErrorKind, Execution
from rewards.sql.sandbox.run import Answer, Request
from rewards.sql.snapshot import DatabaseUnreadable, readable
from rewards.sql.worker import Worker

BATCH = 16
"""Queries sent to a process at a time."""
START_S = 60.0
"""Longest wait for a new process to greet."""
BUSY_S = 900.0
LOST_LIMIT = 2
HARMLESS = "SELECT count(*) FROM sqlite_master"
CPU_AGAIN = 2
"""CPU and wall seconds of the second try of a query that used up its CPU seconds, in budgets."""
T = TypeVar("T")
CRASHES = frozenset((signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL))


class ExecutorsBusy(Exception):
    """No executor came free within BUSY_S seconds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """One statement for one database."""

    database: str
    """Path of the SQLite file."""
    sql: str
    budget: BudgetConfig
    text_errors: Literal["replace", "strict", "ignore"] = "replace"
    """What becomes of text that is not UTF-8; strict makes it a `runtime` error (BIRD's scorer), ignore is Spider's."""
    reverse_unordered: bool = False
    """Scan in the other direction where no ORDER BY asks for one: shows results that hang on scan order."""

    def refusal(self) -> Execution | None:
        """The verdict on a query that no executor needs to see."""
        if len(self.sql) <= self.budget.sql_chars:
            return None
        message = f"the query has {len(self.sql)} characters, more than {self.budget.sql_chars}"
        return Execution(status="error", error_kind="too_large", error=message)

    def request(self) -> Request:
        """Raises DatabaseUnreadable."""
        return self.request_for(readable(self.database))

    def request_for(self, file: str, *, cpu_budgets: float = 1) -> Request:
        """The same for the file that `readable` has found."""
        limits = self.budget
        return (
            *(file, self.sql, limits.vm_steps, limits.rows, limits.bytes, limits.value_bytes),
            *(cpu_budgets * limits.cpu_s, self.text_errors, self.reverse_unordered, limits.clock_ms),
        )


@dataclass(kw_only=True, slots=True)
class _Job:
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
class _Seat:
    """A borrowed worker with the jobs that it was sent and has not answered."""

    worker: Worker
    jobs: deque[_Job] = field(default_factory=deque)
    deadline: float = 0.0

    def rearm(self) -> None:
        wait = self.jobs[0].wall_s if self.worker.ready else START_S
        self.deadline = time.monotonic() + wait


class ExecutorPool:
    """`size` executor processes, started when first needed. Use as a context manager, or `close()`."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.restarts = 0
        """Processes replaced after they were lost or killed."""
        self.events = 0
        """Grows with each answer and each lost process, so that others see a long `run` go on."""
        self._idle: list[Worker | None] = [None] * size
        self._free = threading.Condition()
        self._closed = False

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
        outcome = _Outcome(take, len(queries))
        jobs: deque[_Job] = deque()
        for index, query in enumerate(queries):
            refusal = query.refusal()
            if refusal is not None:
                outcome.put(index, refusal)
                continue
            try:
                jobs.append(_Job(index=index, query=query, request=query.request()))
            except DatabaseUnreadable as error:
                outcome.put(index, Execution(status="unscorable", error=str(error)))
        if jobs:
            with self._borrowed(len(jobs)) as seats:
                _Dispatch(self, jobs, seats, outcome).run()
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
    def _borrowed(self, jobs: int) -> Iterator[list["_Seat | None"]]:
        with self._free:
            if not self._free.wait_for(lambda: self._idle or self._closed, timeout=BUSY_S):
                raise ExecutorsBusy(f"none of the {self.size} SQL executors came free within {BUSY_S:.0f} s")
            if self._closed:
                raise RuntimeError("the executor pool is closed")
            count = min(len(self._idle), jobs)
            # Processes that already run come first.
            self._idle.sort(key=lambda worker: worker is not None)
            taken = [self._idle.pop() for _ in range(count)]
        seats = [_Seat(worker) if worker is not None else None for worker in taken]
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


def _settled(seat: _Seat | None) -> _Seat | None:
    """A worker left in the middle of its batch (an interrupted caller) has answers under way that nobody wants."""
    if seat is not None and seat.jobs:
        seat.worker.bury()
        return None
    return seat


class _Outcome(Generic[T]):
    """What was made of the executions that have come."""

    def __init__(self, take: Callable[[int, Execution], T], count: int) -> None:
        self._take = take
        self._count = count
        self._taken: dict[int, T] = {}

    def put(self, index: int, execution: Execution) -> None:
        self._taken[index] = self._take(index, execution)

    def results(self) -> list[T]:
        return [self._taken[index] for index in range(self._count)]


class _Dispatch:
    """Feeds one batch to borrowed workers until every query has its execution."""

    def __init__(
        self, pool: ExecutorPool, jobs: deque[_Job], seats: list[_Seat | None], outcome: _Outcome[Any]
    ) -> None:
        self._pool, self._jobs, self._seats, self._outcome = pool, jobs, seats, outcome
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
                seat = self._seats[position] = _Seat(Worker(heap_mib))
            except OSError as error:
                for job in batch:
                    self._give_up(job, f"no SQL executor can be started: {error}")
                return
        seat.jobs.extend(batch)
        seat.worker.send([job.request for job in batch])
        seat.rearm()

    def _next_batch(self) -> list[_Job]:
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

    def _hear(self, position: int, seat: _Seat) -> None:
        answers = seat.worker.receive()
        if answers is None:
            self._lost(position, seat, silent=False)
            return
        for answer in answers:
            job = seat.jobs.popleft()
            self._outcome.put(job.index, _execution(answer) if job.blamed is None else _own_doing(job.blamed, answer))
        self._pool.events += len(answers)
        if seat.worker.ready:
            self._failed_starts = 0
        if seat.jobs:
            seat.rearm()

    def _lost(self, position: int, seat: _Seat, *, silent: bool) -> None:
        """Replace a lost process: its current query is judged, the queries behind it go back to the queue."""
        self._seats[position] = None
        self._pool.restarts += 1
        self._pool.events += 1
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

    def _ask_harmless(self, job: _Job, reason: str) -> None:
        """Whether the query that lost its process each time is to blame shows in whether another is answered."""
        harmless = replace(job.query, sql=HARMLESS, reverse_unordered=False)
        request = harmless.request_for(job.request[0])
        self._jobs.append(_Job(index=job.index, query=harmless, request=request, lost=job.lost, blamed=reason))

    def _give_up(self, job: _Job, reason: str) -> None:
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
