"""Runs one request after the other and streams each result against its budget."""

import os
import signal
import sqlite3
from collections.abc import Callable, Iterator
from sys import getsizeof

from rewards.sql.sandbox.clock import Clock
from rewards.sql.sandbox.connections import Connections, DatabaseBroken
from rewards.sql.sandbox.functions import Functions, Value
from rewards.sql.sandbox.verdict import OUT_OF_MEMORY, OUT_OF_STEPS, WRITING_KEYWORDS, TooLarge, classify, first_keyword

STEP_INTERVAL = 1000
"""VM instructions between two calls of the progress handler: the unit of every step count."""
ROW_BYTES = 64
CELL_BYTES = 8
NUMBER_BYTES = 32
"""What a row, a place in it and a number take in memory; text and blobs are measured."""
NATIVE_BYTES = 10_000
"""Of a value where SQLite's own functions run: their calls are not charged, so none may take long."""

Answer = tuple[str, tuple[str, ...], tuple[tuple[Value, ...], ...], str | None, str | None, int]
"""(status, columns, rows, error kind, message, VM steps)."""
Request = tuple[str, str, int, int, int, int, float, str, bool, int]
"""(database path, sql, VM steps, rows, bytes, bytes of a value, CPU seconds, text errors, reverse unordered selects,
milliseconds since 1970 at which the clock stands)."""


class Steps:
    """Counts VM instructions in units of STEP_INTERVAL; interrupts when they and the steps charged by `functions` pass
    the budget, or when the parent is gone."""

    def __init__(self, limit: int, functions: Functions) -> None:
        self.calls = 0
        self._functions = functions
        self._limit = max(1, limit // STEP_INTERVAL)
        self._parent = os.getppid()

    def tick(self) -> int:
        self.calls += 1
        if self.calls & 63 == 0 and os.getppid() != self._parent:
            os._exit(0)
        return self.spent()

    def spent(self) -> bool:
        """Whether the budget is used up. Asked once more at the end: calls may cost much between two ticks."""
        return self.calls + self._functions.steps // STEP_INTERVAL > self._limit


def _collect(cursor: Iterator[tuple[Value, ...]], max_rows: int, max_bytes: int) -> tuple[tuple[Value, ...], ...]:
    rows: list[tuple[Value, ...]] = []
    size = 0
    for row in cursor:
        size += ROW_BYTES + CELL_BYTES * len(row)
        for value in row:
            size += getsizeof(value) if type(value) is str or type(value) is bytes else NUMBER_BYTES
        if len(rows) >= max_rows:
            raise TooLarge(f"more than {max_rows} rows")
        if size > max_bytes:
            raise TooLarge(f"a result of more than {max_bytes} bytes")
        rows.append(row)
    return tuple(rows)


def _failed_with(answer: Answer, message: str) -> bool:
    return answer[3] == "runtime" and (answer[4] or "").startswith(message)


def _text_factory(errors: str) -> Callable[[bytes], str]:
    return lambda raw: raw.decode("utf-8", errors)


class Executor:
    """Answers requests, one at a time; what a query does is in the answer, never raised."""

    def __init__(self) -> None:
        self._clock = Clock()
        self._functions = Functions()
        self._connections = Connections(self._functions, self._clock)

    def answer(self, request: Request) -> Answer:
        sql, text_errors = request[1], request[7]
        keyword = first_keyword(sql)
        if keyword in WRITING_KEYWORDS:
            return "error", (), (), "forbidden", f"{keyword.upper()} is not a read-only query", 0
        if keyword not in ("select", "with", "values"):
            return "error", (), (), "not_a_query", "not a SELECT, WITH or VALUES statement", 0
        answer = self._run(request, None)
        if answer[3] == "too_large" and answer[4] == OUT_OF_MEMORY:
            self._connections.close_all()
            answer = self._run(request, None)
        errors: str | None = None
        native = False
        while True:  # either may show only once the other is out of the way
            if not native and _failed_with(answer, "user-defined function raised exception"):
                native = True
            elif errors is None and text_errors != "strict" and _failed_with(answer, "Could not decode to UTF-8"):
                errors = text_errors
            else:
                return answer
            answer = self._run(request, errors, native=native)

    def _run(self, request: Request, text_errors: str | None, *, native: bool = False) -> Answer:
        """text_errors None decodes strictly in C, which is the fast way; `native`: see Functions.install."""
        path, sql, max_steps, max_rows, max_bytes, max_value, cpu_seconds, _, reverse, clock_ms = request
        steps = Steps(max_steps, self._functions)
        try:
            # Before the CPU timer, whose end is the query's fault: what opening costs is the database's.
            connection = self._connections.get(path, reverse=reverse, native=native)
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, min(max_value, NATIVE_BYTES) if native else max_value)
            connection.text_factory = _text_factory(text_errors) if text_errors else str
            connection.set_progress_handler(steps.tick, min(STEP_INTERVAL, max_steps))
            self._functions.begin(max_value)
            self._clock.frozen_ms = clock_ms
            signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
            cursor = connection.execute(sql)
            try:
                columns = tuple(entry[0] for entry in cursor.description or ())
                rows = _collect(cursor, max_rows, max_bytes)
            finally:
                cursor.close()
            if steps.spent():
                return "error", (), (), "timeout", OUT_OF_STEPS, steps.calls * STEP_INTERVAL
            return "ok", columns, rows, None, None, steps.calls * STEP_INTERVAL
        except DatabaseBroken as error:
            return "unscorable", (), (), None, str(error), 0
        except (sqlite3.Error, sqlite3.Warning, TooLarge, MemoryError, UnicodeError, OverflowError) as error:
            status, kind, message = classify(error, sql)
            return status, (), (), kind, message, steps.calls * STEP_INTERVAL
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
