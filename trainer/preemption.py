"""SIGTERM: a machine is about to be taken away. A running job stops at its next safe point and writes a checkpoint.

Safe points are the waits for groups and the evaluations; an optimizer step that has begun is finished first. Before the
job runs there is nothing to save, and SIGTERM ends the run as Ctrl-C does.
"""

import asyncio
import signal
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, ClassVar, TypeVar

from conf.errors import QuorumError

T = TypeVar("T")


class Preempted(QuorumError):
    """The job stopped because of SIGTERM; its last finished step is in a checkpoint."""

    exit_code: ClassVar[int] = 128 + signal.SIGTERM


class Preemption:
    """Whether this process has been asked to leave."""

    def __init__(self) -> None:
        self.asked = False
        """SIGTERM has come while the job ran."""
        self._told: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """SIGTERM raises KeyboardInterrupt while the block runs, except inside `gently`."""
        before = signal.signal(signal.SIGTERM, self._on_signal)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    @contextmanager
    def gently(self) -> Iterator[None]:
        """While the block runs, SIGTERM makes `unless` raise Preempted and interrupts nothing else."""
        self._loop, self._told = asyncio.get_running_loop(), asyncio.Event()
        try:
            yield
        finally:
            self._told = None

    async def unless(self, work: Coroutine[Any, Any, T]) -> T:
        """`work`'s result. Raises Preempted, and cancels `work`, as soon as SIGTERM has come."""
        if self._told is None:
            return await work
        task, told = asyncio.ensure_future(work), asyncio.ensure_future(self._told.wait())
        try:
            await asyncio.wait({task, told}, return_when=asyncio.FIRST_COMPLETED)
            if told.done():
                raise Preempted("stopped by SIGTERM")
            return task.result()
        finally:
            task.cancel()
            told.cancel()
            await asyncio.gather(task, told, return_exceptions=True)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._told is None or self._loop is None:
            raise KeyboardInterrupt
        self.asked = True
        self._loop.call_soon_threadsafe(self._told.set)
