"""Profiles the steps that profile.steps names: a torch trace of every learner rank and a timeline of the driver.

Both lie in the run folder's profile/. A torch trace makes its steps slower; the timeline costs nothing.
"""

import json
from pathlib import Path
from typing import Protocol

from conf.schema.stages import ProfileConfig
from records.files import write_atomically
from trainer.pipeline.clock import StageClock, now
from trainer.profile.timeline import Timeline

FOLDER = "profile"
TIMELINE = "timeline.json"


class Traced(Protocol):
    """The learner."""

    async def start_trace(self) -> None: ...

    async def stop_trace(self, folder: Path) -> None:
        """Writes learner-rank<r>.json."""
        ...


class StepProfiler:
    def __init__(self, config: ProfileConfig, run_folder: Path, clock: StageClock, learner: Traced) -> None:
        self._steps = config.steps
        self._folder = run_folder / FOLDER
        self._clock = clock
        self._learner = learner
        self._timeline: Timeline | None = None

    async def before(self, step: int) -> None:
        """Call it when optimizer step `step` is about to begin."""
        if self._steps is None or self._timeline is not None or not self._steps[0] <= step <= self._steps[1]:
            return
        await self._learner.start_trace()
        self._timeline = self._clock.spans = Timeline(now())

    async def after(self, step: int) -> None:
        """Call it when optimizer step `step` has ended."""
        if self._timeline is None or self._steps is None or step < self._steps[1]:
            return
        self._clock.spans = None
        self._folder.mkdir(exist_ok=True)
        write_atomically(self._folder / TIMELINE, json.dumps(self._timeline.as_chrome()))
        self._timeline = None
        await self._learner.stop_trace(self._folder)
