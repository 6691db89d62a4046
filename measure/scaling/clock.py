"""An asyncio event loop whose clock jumps to the next timer instead of waiting for it.

Guarantees: the order of events is that of a real loop whose callbacks take no time; the same program gives the same
times. Not for programs that wait for files, sockets or threads: nothing but timers ever wakes them.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class SimulationStuck(Exception):
    """Everybody waits and no timer is set: a deadlock in what is simulated."""


class _JumpingSelector(selectors.SelectSelector):
    """Never waits; tells how long a real one would have."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise SimulationStuck("everybody waits and no timer is set")
        self.clock += max(0.0, timeout)
        return []


class SimulatedLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Simulated seconds since the loop was made."""
        return self._jumping.clock


def simulate(main: Coroutine[Any, Any, T]) -> T:
    """Runs `main` to its end in simulated time. Raises SimulationStuck."""
    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        return runner.run(main)
