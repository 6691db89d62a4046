"""One long run with a random fault now and then, beside an undisturbed one of the same seed.

It must do all its steps, lose and repeat nothing, keep its memory, and end as accurate as the undisturbed run.
"""

import json
import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from conf.output import replace_text
from measure.chaos.faults import IN_PASSING
from measure.chaos.ledgers import Account, account, read_ledger
from measure.chaos.trial import Lab
from measure.chaos.watched import TrainerRun, TrialFailed
from records.files import read_rows

SETTINGS = (
    "rollout.max_restarts=1000",
    "learner.max_restarts=1000",
    "reward.execution.budget.wall_s=4",
    "checkpoint.every=10",
    # A policy that is right now and then, or its accuracy would say nothing: the quickstart's.
    "model.layers=4",
    "warmup.steps=400",
    "data.warmup_size=16000",
    "data.train_size=4000",
)
GROWTH = 0.10
"""Share by which the memory at the end may exceed that at the beginning."""
NOISE = 3.0
"""Standard errors that the mean accuracy may lie away from the undisturbed run's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Soaked:
    steps_done: int
    steps_asked: int
    faults: list[str]
    groups_lost: int
    groups_trained_twice: int
    memory_first_gib: float
    memory_last_gib: float
    accuracy: float
    """Mean over the last third of the steps, of sampled completions."""
    accuracy_undisturbed: float
    accuracy_allowed: float
    """Largest difference that is noise."""

    def problems(self) -> list[str]:
        """What the run should not have done, in words."""
        found = []
        if self.steps_done != self.steps_asked:
            found.append(f"{self.steps_done} of {self.steps_asked} steps were done")
        if self.groups_lost or self.groups_trained_twice:
            found.append(f"{self.groups_lost} groups were lost, {self.groups_trained_twice} trained twice")
        if self.memory_last_gib > (1 + GROWTH) * self.memory_first_gib:
            found.append(f"memory grew from {self.memory_first_gib:.2f} to {self.memory_last_gib:.2f} GiB")
        if not self.accuracy_undisturbed:
            found.append("the undisturbed run was never right, so that accuracy shows nothing")
        if abs(self.accuracy - self.accuracy_undisturbed) > self.accuracy_allowed:
            found.append(f"accuracy {self.accuracy:.3f}, undisturbed {self.accuracy_undisturbed:.3f}")
        return found


def soak(lab: Lab) -> Soaked:
    """Both runs. Raises TrialFailed when one of them ends early."""
    steps, every = lab.config.soaking.steps, lab.config.soaking.every
    still = lab.undisturbed("soak_undisturbed", steps, *SETTINGS)
    folder = lab.clear("soak")
    chance = random.Random(lab.config.seed)
    faults: list[str] = []
    memory: list[float] = []
    with lab.run("soak", steps, *SETTINGS) as run:
        run.start()
        for step in range(every, steps, every):
            _reach(run, step - 1, memory)
            _reach(run, step, memory)
            name = chance.choice(sorted(IN_PASSING))
            with IN_PASSING[name](folder) as scene:
                scene.inject(run)
            faults.append(f"{step}: {name}")
        if code := run.wait():
            raise TrialFailed(f"the run ended with exit code {code}: see {run.log}")
    counts = account(read_ledger(still / "ledger.jsonl"), read_ledger(folder / "ledger.jsonl"), steps=steps)
    return _compared(folder, still, counts, faults=faults, memory=memory, steps=steps)


def write(file: Path, soaked: Soaked) -> None:
    """As JSON, with the problems."""
    replace_text(file, json.dumps(asdict(soaked) | {"problems": soaked.problems()}, indent=1) + "\n")


def memory_of(run: TrainerRun) -> float:
    """Proportional memory of the run's processes, GiB: pages that several of them share count once."""
    total = 0
    for process in [run.process, *run.process.children(recursive=True)]:
        try:
            total += process.memory_full_info().pss
        except psutil.NoSuchProcess:
            continue
    return total / 2**30


def ends(values: Sequence[float]) -> tuple[float, float]:
    """Medians of the first and the last third."""
    third = max(1, len(values) // 3)
    return statistics.median(values[:third]), statistics.median(values[-third:])


def noise(first: Sequence[float], second: Sequence[float]) -> float:
    """Difference of two means that is still noise: NOISE standard errors."""
    return NOISE * math.sqrt(statistics.variance(first) / len(first) + statistics.variance(second) / len(second))


def _reach(run: TrainerRun, step: int, memory: list[float]) -> None:
    run.until(lambda: run.step >= step, f"step {step}")
    memory.append(memory_of(run))


def _compared(
    folder: Path, still: Path, counts: Account, *, faults: list[str], memory: list[float], steps: int
) -> Soaked:
    disturbed, other = _accuracies(folder), _accuracies(still)
    late = [values[-max(2, len(values) // 3) :] for values in (disturbed, other)]
    first, last = ends(memory)
    return Soaked(
        steps_done=max((entry.step for entry in read_ledger(folder / "ledger.jsonl")), default=0),
        steps_asked=steps,
        faults=faults,
        groups_lost=counts.groups_lost,
        groups_trained_twice=counts.groups_trained_twice,
        memory_first_gib=first,
        memory_last_gib=last,
        accuracy=statistics.fmean(late[0]),
        accuracy_undisturbed=statistics.fmean(late[1]),
        accuracy_allowed=noise(late[0], late[1]),
    )


def _accuracies(folder: Path) -> list[float]:
    rows = list(read_rows(folder / "metrics.jsonl"))
    return [row["reward/accuracy"] for row in rows if "reward/accuracy" in row]
