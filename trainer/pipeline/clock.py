"""Wall-clock seconds by stage of the run."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, Protocol, get_args

Stage = Literal["check", "warmup", "render", "start", "generate", "score", "train", "sync", "evaluate", "checkpoint"]


def now() -> float:
    """Seconds of the running event loop's clock: time.monotonic() but for a loop that simulates."""
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:
        return time.monotonic()


class Spans(Protocol):
    """What wants to know when things happened; moments are those of `now`."""

    def stage(self, name: str, start: float, end: float) -> None: ...

    def group(self, position: int, started: float, generated: float, finished: float) -> None: ...


class StageClock:
    """Adds up seconds the driver spent in, or waited for, each stage. Stages that overlap a wait are counted once."""

    def __init__(self) -> None:
        self.total: dict[str, float] = dict.fromkeys(get_args(Stage), 0.0)
        self.spans: Spans | None = None
        self._step: dict[str, float] = {}

    def add(self, stage: Stage, start: float, end: float) -> None:
        """The driver was in this stage, or waited for it, between two moments."""
        self.total[stage] += end - start
        self._step[stage] = self._step.get(stage, 0.0) + end - start
        if self.spans is not None:
            self.spans.stage(stage, start, end)

    def group(self, position: int, started: float, generated: float, finished: float) -> None:
        """A group's way, which overlaps others' and is no stage of the driver."""
        if self.spans is not None:
            self.spans.group(position, started, generated, finished)

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:
        start = now()
        try:
            yield
        finally:
            self.add(stage, start, now())

    def take_step(self) -> dict[str, float]:
        """Seconds by stage since the last call."""
        step, self._step = self._step, {}
        return step
