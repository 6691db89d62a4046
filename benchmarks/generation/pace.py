"""Spaces requests evenly in time."""

import asyncio
import time


class Pace:
    """At most `per_minute` turns a minute; whoever asks waits for the next free moment, in the order of asking."""

    def __init__(self, per_minute: float) -> None:
        self._gap_s = 60.0 / per_minute
        self._next = 0.0

    async def turn(self) -> None:
        """Returns when the caller may send."""
        now = time.monotonic()
        at = max(now, self._next)
        self._next = at + self._gap_s
        await asyncio.sleep(at - now)
