"""Work that takes simulated time, at the speed that its machine's cores allow.

A machine's active parts ask for cores; when they ask for more than there are, all of them slow down alike, as threads
under a fair scheduler do. A device of one's own is a machine without a limit.
"""

import asyncio
import math
from abc import ABC, abstractmethod
from collections.abc import Callable

from trainer.pipeline.clock import now


class Cores:
    def __init__(self, count: float = math.inf) -> None:
        self._count = count
        self._asked: dict[Part, float] = {}

    @property
    def share(self) -> float:
        """Speed of every active part, in (0, 1]."""
        asked = sum(self._asked.values())
        return min(1.0, self._count / asked) if asked else 1.0

    def ask(self, part: "Part", cores: float) -> None:
        """`part` is active with this many cores, or idle with 0."""
        if self._asked.get(part, 0.0) == cores:
            return
        others = [other for other in self._asked if other is not part] if math.isfinite(self._count) else []
        for other in others:
            other.advance()
        if cores:
            self._asked[part] = cores
        else:
            del self._asked[part]
        for other in others:
            other.plan()


class Part(ABC):
    """Something whose progress depends on its machine's share. `advance` before a change, `plan` after it."""

    def __init__(self, machine: Cores) -> None:
        self.machine = machine
        self._timer: asyncio.TimerHandle | None = None
        self._seen = 0.0

    def advance(self) -> None:
        """Accounts for the time since the last call."""
        moment = now()
        elapsed, self._seen = moment - self._seen, moment
        if elapsed > 0:
            self.progress(elapsed * self.machine.share)

    def plan(self) -> None:
        """Sets the timer for what happens next."""
        if self._timer is not None:
            self._timer.cancel()
        seconds = self.remaining()
        self._timer = None
        if seconds is not None:
            self._timer = asyncio.get_running_loop().call_later(seconds / self.machine.share, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self.advance()
        self.happen()

    @abstractmethod
    def progress(self, seconds: float) -> None:
        """`seconds` of work at full speed were done."""

    @abstractmethod
    def remaining(self) -> float | None:
        """Seconds of work at full speed until the next event; None: there is none."""

    @abstractmethod
    def happen(self) -> None:
        """The next event has come."""


class Job(Part):
    """One piece of work after the other."""

    def __init__(self, machine: Cores, cores: float) -> None:
        super().__init__(machine)
        self._cores = cores
        self._left = 0.0
        self._finish: Callable[[], None] | None = None

    async def work(self, seconds: float) -> None:
        """Returns when `seconds` of work are done. One call at a time."""
        future = asyncio.get_running_loop().create_future()
        self.advance()
        self._left, self._finish = seconds, lambda: future.set_result(None)
        self.machine.ask(self, self._cores)
        self.plan()
        await future

    def progress(self, seconds: float) -> None:
        self._left -= seconds

    def remaining(self) -> float | None:
        return max(0.0, self._left) if self._finish is not None else None

    def happen(self) -> None:
        finish, self._finish = self._finish, None
        self.machine.ask(self, 0.0)
        if finish is not None:
            finish()
