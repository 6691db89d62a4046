"""Wall-clock seconds by stage of the run."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

Stage = Literal["generate", "score", "train", "sync", "evaluate", "checkpoint"]


class StageClock:
    """Adds up seconds the driver spent in, or waited for, each stage. Stages that overlap a wait are counted once."""

    def __init__(self) -> None:
        self.total: dict[str, float] = dict.fromkeys(get_args(Stage), 0.0)
        self._step: dict[str, float] = {}

    def add(self, stage: Stage, seconds: float) -> None:
        self.total[stage] += seconds
        self._step[stage] = self._step.get(stage, 0.0) + seconds

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            self.add(stage, time.monotonic() - start)

    def take_step(self) -> dict[str, float]:
        """Seconds by stage since the last call."""
        step, self._step = self._step, {}
        return step
