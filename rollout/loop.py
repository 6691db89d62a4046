"""The thread that owns an engine: steps it while groups are pending, and runs commands between two steps.

Who waits for whom: callers of `call` wait for the current step to end (its time limit is theirs to set); callers of
`collect` wait for a finished group or their own limit; the thread waits for commands only when the engine has nothing
to do. An exception of a step ends the thread; every later call raises it.
"""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

from rollout.errors import GenerationFailed, RolloutError
from rollout.requests import SampledGroup

T = TypeVar("T")


Command = tuple[Callable[[Any], Any], Future[Any], bool]
"""What to run, who waits for it, and whether it must wait until no group is pending."""


class SteppedEngine(Protocol):
    """What the loop needs of an engine."""

    @property
    def pending(self) -> int: ...

    @property
    def version(self) -> int: ...

    def step(self) -> tuple[SampledGroup, ...]: ...


class EngineLoop:
    """Runs an engine in a thread of its own."""

    def __init__(self, build: Callable[[], Any]) -> None:
        """`build` makes the engine, inside the thread; `wait_ready` reports how that went."""
        self._build = build
        self._commands: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
        self._postponed: list[Command] = []
        self._changed = threading.Condition()
        self._finished: list[SampledGroup] = []
        self._failure: RolloutError | None = None
        self._ready: Future[int] = Future()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def wait_ready(self, timeout_s: float | None = None) -> int:
        """The version of the engine's weights, once it has started; raises what its start raised."""
        return self._ready.result(timeout_s)

    def call(self, command: Callable[[Any], T], timeout_s: float | None = None, *, when_idle: bool = False) -> T:
        """Run `command(engine)` between two steps and return its result; with `when_idle` only once no group is
        pending, which no later command waits for."""
        if self._failure is not None:
            raise self._failure
        future: Future[T] = Future()
        self._commands.put((command, future, when_idle))
        if self._failure is not None:
            self._refuse(self._failure)
        return future.result(timeout_s)

    def collect(self, wait_s: float) -> tuple[SampledGroup, ...]:
        """Finished groups, each handed over once; empty after `wait_s` seconds without one."""
        with self._changed:
            self._changed.wait_for(lambda: self._finished or self._failure, wait_s)
            if self._failure is not None and not self._finished:
                raise self._failure
            groups, self._finished = tuple(self._finished), []
        return groups

    def stop(self) -> None:
        """End the thread after the current step."""
        self._commands.put(None)

    def _run(self) -> None:
        try:
            engine: SteppedEngine = self._build()
            self._ready.set_result(engine.version)
            while self._obey(engine):
                self._deliver(engine.step() if engine.pending else ())
        except RolloutError as error:
            self._fail(error)
        except Exception as error:  # the end of a thread: whatever it was must reach those who wait
            self._fail(GenerationFailed(f"the engine's thread ended with {type(error).__name__}: {error}"))

    def _fail(self, error: RolloutError) -> None:
        with self._changed:
            self._failure = error
            self._changed.notify_all()
        if not self._ready.done():
            self._ready.set_exception(error)
        self._refuse(error)

    def _obey(self, engine: SteppedEngine) -> bool:
        """Run waiting commands (wait for one when the engine is idle); False: stop."""
        while True:
            if self._postponed and not engine.pending:
                self._execute(self._postponed.pop(0), engine)
                continue
            try:
                item = self._commands.get(block=not engine.pending)
            except queue.Empty:
                return True
            if item is None:
                return False
            if item[2] and engine.pending:
                self._postponed.append(item)
            else:
                self._execute(item, engine)

    def _execute(self, item: Command, engine: SteppedEngine) -> None:
        command, future, _ = item
        try:
            future.set_result(command(engine))
        except Exception as error:  # it belongs to the caller, who gets it
            future.set_exception(error)

    def _deliver(self, groups: tuple[SampledGroup, ...]) -> None:
        if groups:
            with self._changed:
                self._finished.extend(groups)
                self._changed.notify_all()

    def _refuse(self, error: RolloutError) -> None:
        """Answer the commands that are still queued."""
        while self._postponed:
            self._postponed.pop()[1].set_exception(error)
        while True:
            try:
                item = self._commands.get_nowait()
            except queue.Empty:
                return
            if item is not None:
                item[1].set_exception(error)
