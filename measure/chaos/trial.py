"""One fault made to one run: start, wait for the step, break it, watch it recover, count what was lost."""

import shutil
import statistics
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from conf.child import module_command
from conf.load import quoted
from conf.schema.chaos import ChaosConfig, FaultName
from measure.chaos.faults import FAULTS
from measure.chaos.ledgers import Consumed, account, read_ledger
from measure.chaos.scene import Noticed, NotPossible, Scene
from measure.chaos.watched import TrainerRun, TrialFailed
from records.files import read_rows

PASSED = "passed"
NOT_RUN = "not run"
FOLLOW_S = 0.05
"""Between two looks at a run that is to recover; looking costs it time, too."""
TRAINER = tuple(module_command("trainer"))
SMALL = (
    "experiment=quickstart",
    "data.warmup_size=400",
    "data.train_size=64",
    "data.heldout_size=12",
    "warmup.steps=40",
    "model.layers=2",
    "pipeline.prompts_per_step=4",
    "rollout.group_size=8",
    # Every step trains and so compares log-probabilities, though a policy this raw is always wrong.
    "algo.drop_zero_variance=false",
    "evaluation=none",
    "evaluation.every=0",
    "checkpoint.every=2",
    "logging.progress=plain",
)
"""A run that is real in every part and takes a minute."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """What one fault did to one run."""

    fault: str
    injected_at_step: int
    detected_s: float | None
    """From the fault until the run reacted: a line in its log, a new process, its end. None: it just waited."""
    recovered_s: float | None
    """From the fault until an optimizer step was done that had not been done when the run reacted; None where none
    should be. What the fault has cost is this less a usual step."""
    steps_done: int
    steps_asked: int
    groups_lost: int
    groups_trained_twice: int
    status: str
    """passed, not run: why, or failed: why."""

    @property
    def failed(self) -> bool:
        return not self.status.startswith((PASSED, NOT_RUN))


class Lab:
    """Starts runs that share one warm-up and one set of databases."""

    def __init__(self, config: ChaosConfig, trainer: Sequence[str] = TRAINER) -> None:
        """`trainer`: the command that takes the settings."""
        self.config = config
        self.place = Path(config.output)
        self._trainer = trainer

    def run(self, name: str, steps: int, *settings: str) -> TrainerRun:
        """A run that is not started yet."""
        command = [
            *self._trainer,
            *SMALL,
            *(
                f"seed={self.config.seed}",
                f"run.dir={quoted(str(self.place))}",
                f"run.name={name}",
                f"pipeline.steps={steps}",
            ),
            *(f"data.root={self.place / 'demo'}", f"warmup.cache={self.place / 'warmup'}"),
            *self.config.settings,
            *settings,
        ]
        return TrainerRun(command, folder=self.place / name, log=self._log(name), limit_s=self.config.run_timeout_s)

    def clear(self, name: str) -> Path:
        """The run's folder, after an earlier run of this name was removed."""
        folder = self.place / name
        shutil.rmtree(folder, ignore_errors=True)
        self.place.mkdir(parents=True, exist_ok=True)
        self._log(name).unlink(missing_ok=True)
        return folder

    def undisturbed(self, name: str, steps: int, *settings: str) -> Path:
        """The folder of a run that nothing happened to. Raises TrialFailed."""
        folder = self.clear(name)
        with self.run(name, steps, *settings) as run:
            run.start()
            if code := run.wait():
                raise TrialFailed(f"an undisturbed run ended with exit code {code}: see {run.log}")
        return folder

    def _log(self, name: str) -> Path:
        return self.place / f"{name}.log"


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """What an undisturbed run has done."""

    consumed: Sequence[Consumed]
    step_s: float
    """Median seconds of its steps."""


def read_reference(folder: Path) -> Reference:
    """From the folder of an undisturbed run. Raises TrialFailed."""
    consumed = read_ledger(folder / "ledger.jsonl")
    if not consumed:
        raise TrialFailed(f"{folder} holds no ledger of a run")
    return Reference(consumed=consumed, step_s=usual_step(folder))


def try_fault(name: FaultName, lab: Lab, reference: Reference) -> Row:
    """Makes the fault; whatever comes of it is a row."""
    folder = lab.clear(name)
    trial = _Trial(name, lab, reference, folder)
    try:
        with FAULTS[name](folder) as scene:
            return trial.through(scene)
    except NotPossible as error:
        return trial.row(f"{NOT_RUN}: {error}")
    except (TrialFailed, psutil.Error, subprocess.SubprocessError, OSError) as error:
        return trial.row(f"failed: {error}")


class _Trial:
    def __init__(self, name: str, lab: Lab, reference: Reference, folder: Path) -> None:
        self._name, self._lab, self._folder = name, lab, folder
        self._reference = reference
        self._asked = lab.config.steps
        self._at_step = 0
        self._detected: float | None = None
        self._recovered: float | None = None

    def through(self, scene: Scene) -> Row:
        config = self._lab.config
        self._asked = scene.steps or config.steps
        wanted = config.at_step if scene.at_step is None else scene.at_step
        with self._lab.run(self._name, config.steps, *scene.settings) as run:
            run.start()
            if wanted:
                run.until(lambda: run.step >= wanted, f"step {wanted}")
            self._break(scene, run)
            code = run.wait()
            expected = 0 if scene.resumes or scene.exit_code is None else scene.exit_code
            problem = None if code == expected else f"exit code {code} at the end: see {run.log}"
            left = run.left_behind()
            problem = problem or self._miscounted() or self._too_slow(scene, run) or scene.check(run)
            problem = problem or (f"{len(left)} processes were left behind: {left[0]}" if left else None)
        return self.row(f"failed: {problem}" if problem else PASSED)

    def row(self, status: str) -> Row:
        done = read_ledger(self._folder / "ledger.jsonl")
        counts = account(self._reference.consumed, done, steps=self._asked)
        return Row(
            fault=self._name,
            injected_at_step=self._at_step,
            detected_s=self._detected,
            recovered_s=self._recovered,
            steps_done=max((entry.step for entry in done), default=0),
            steps_asked=self._asked,
            groups_lost=0 if status.startswith(NOT_RUN) else counts.groups_lost,
            groups_trained_twice=counts.groups_trained_twice,
            status=status,
        )

    def _break(self, scene: Scene, run: TrainerRun) -> None:
        """Makes the fault and follows the run to its next new step, or to the end that it should come to."""
        run.remember()
        noticed = scene.inject(run)
        began = time.monotonic()
        self._at_step = step = run.step
        resumed = False
        while self._recovered is None:
            # The exit code comes first: what a run has shown before its end is then seen as well.
            code, now = run.exit_code, time.monotonic() - began
            if now > self._lab.config.run_timeout_s:
                raise TrialFailed(f"no new step within {now:.0f} s of the fault: see {run.log}")
            if self._detected is None and noticed is not None and noticed():
                self._detected = now
                step = max(step, run.step)
                if scene.exit_code is None:
                    scene.heal()
            if code is not None and not resumed and scene.exit_code is not None:
                if code != scene.exit_code or self._detected is None:
                    raise TrialFailed(f"the run ended with exit code {code}, not for the fault: see {run.log}")
                scene.heal()
                if not scene.resumes:
                    return
                step, resumed = max(step, run.step), True
                run.start("resume=auto")
            elif self._has_reacted(scene, noticed, resumed=resumed) and run.step > step:
                self._recovered = time.monotonic() - began
                run.remember()
            elif code is not None:
                raise TrialFailed(f"the run ended with exit code {code} before it recovered: see {run.log}")
            time.sleep(FOLLOW_S)

    def _has_reacted(self, scene: Scene, noticed: Noticed | None, *, resumed: bool) -> bool:
        if scene.exit_code is not None:
            return resumed
        return noticed is None or self._detected is not None

    def _too_slow(self, scene: Scene, run: TrainerRun) -> str | None:
        if scene.allowed_s is None or self._recovered is None:
            return None
        cost, allowed = self._recovered - self._reference.step_s, scene.allowed_s(run)
        if cost <= allowed:
            return None
        return f"it cost {cost:.1f} s beyond a usual step, more than {allowed:.1f} s"

    def _miscounted(self) -> str | None:
        row = self.row("")
        if row.steps_done != row.steps_asked:
            return f"{row.steps_done} steps were done"
        if row.groups_lost or row.groups_trained_twice:
            return f"{row.groups_lost} groups were lost, {row.groups_trained_twice} trained twice"
        return None


def usual_step(folder: Path) -> float:
    """Median seconds of an optimizer step in a run's metrics; 0 where none is logged."""
    seconds = [row["perf/step_s"] for row in read_rows(folder / "metrics.jsonl") if row.get("perf/step_s")]
    return statistics.median(seconds) if seconds else 0.0
