"""SIGTERM: a machine is about to be taken away. A running job stops at its next safe point and writes a checkpoint.

Safe points are the waits for groups and the evaluations; an optimizer step that has begun is finished first, if it ends
within the grace period: otherwise the job leaves in mid-step and an earlier checkpoint is what remains. Before the job
runs there is nothing to save, and SIGTERM ends the run at once, with the same exit code.
"""

import asyncio
import signal
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, ClassVar, TypeVar

from conf.errors import QuorumError, Terminated

T = TypeVar("T")


class Preempted(QuorumError):
    """The job stopped because of SIGTERM; its last finished step is in a checkpoint, unless its text says otherwise."""

    exit_code: ClassVar[int] = 128 + signal.SIGTERM


class Preemption:
    """Whether this process has been asked to leave."""

    def __init__(self, *, grace_s: float = 25.0) -> None:
        """`grace_s`: longest wait for a safe point after SIGTERM."""
        self.asked = False
        """SIGTERM has come while the job ran."""
        self.ended = False
        """SIGTERM has come where there was nothing to save."""
        self._grace_s = grace_s
        self._told: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._job: asyncio.Task[Any] | None = None
        self._late = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """SIGTERM raises Terminated while the block runs, except inside `gently`."""
        before = signal.signal(signal.SIGTERM, self._on_signal)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    @contextmanager
    def gently(self) -> Iterator[None]:
        """While the block runs, SIGTERM makes `unless` raise Preempted; what else it runs is cancelled, and Preempted
        raised, when the grace period is over."""
        self._loop, self._told, self._job = asyncio.get_running_loop(), asyncio.Event(), asyncio.current_task()
        try:
            yield
        except asyncio.CancelledError:
            if not self._late:
                raise
            raise Preempted(
                f"stopped by SIGTERM in mid-step: it had not ended after checkpoint.grace_s={self._grace_s:g},"
                " an earlier checkpoint is what remains"
            ) from None
        finally:
            self._told = self._job = None

    async def unless(self, work: Coroutine[Any, Any, T]) -> T:
        """`work`'s result. Raises Preempted, and cancels `work`, as soon as SIGTERM has come."""
        if self._told is None:
            return await work
        task, told = asyncio.ensure_future(work), asyncio.ensure_future(self._told.wait())
        try:
            await asyncio.wait({task, told}, return_when=asyncio.FIRST_COMPLETED)
            if told.done():
                self._job = None  # at a safe point: the checkpoint that follows takes the time it needs
                raise Preempted("stopped by SIGTERM")
            return task.result()
        finally:
            task.cancel()
            told.cancel()
            await asyncio.gather(task, told, return_exceptions=True)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._told is None or self._loop is None:
            self.ended = True
            # As Ctrl-C would, which an event loop takes as a cancellation and not in the middle of its own work.
            ctrl_c = signal.getsignal(signal.SIGINT)
            if callable(ctrl_c) and ctrl_c is not signal.default_int_handler:
                ctrl_c(signal.SIGINT, frame)
                return
            raise Terminated
        self.asked = True
        self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        if self._told is not None and self._loop is not None:
            self._told.set()
            self._loop.call_later(self._grace_s, self._give_up)

    def _give_up(self) -> None:
        if self._job is not None:
            self._late = True
            self._job.cancel()
