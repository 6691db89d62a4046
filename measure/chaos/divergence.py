"""Gradients that are not finite: rewards too large for the learner's floats, and advantages that keep their size.

Made by settings alone. Every step's gradient is infinite, so the run must skip each of them, keep the batch, and end at
the limit, with the policy as it was.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from conf.child import module_command
from measure.chaos.scene import Noticed, Scene
from measure.chaos.watched import TrainerRun

LIMIT = 1
FAILED = 1
REPLAYED = 3
"""What the replay exits with when it has found the completions at fault."""


@contextmanager
def infinite_gradients(folder: Path) -> Iterator[Scene]:
    def inject(run: TrainerRun) -> Noticed:
        run.until(lambda: run.said("starting engines done"), "the first step")
        return lambda: run.said("the gradient was not finite, nothing was updated")

    yield Scene(
        inject=inject,
        settings=(
            # A policy that writes SQL, or no two answers of a group would differ in what they earn.
            "model.layers=4",
            "warmup.steps=400",
            "algo=dr_grpo",
            "reward.format_gate=false",
            "reward.atomic.weight=1.0e+60",
            "reward.execution.weight=1.0e+60",
            f"learner.max_skipped_steps={LIMIT}",
        ),
        exit_code=FAILED,
        resumes=False,
        check=_replayed,
        at_step=0,
        steps=LIMIT + 1,
    )


def _replayed(run: TrainerRun) -> str | None:
    batches = sorted((run.folder / "skipped").glob("step-*/batch.json"))
    if not batches:
        return "no batch was kept"
    answer = subprocess.run(
        module_command("operate.replay", str(batches[0])), capture_output=True, text=True, timeout=300
    )
    if answer.returncode != REPLAYED:
        return f"the replay of {batches[0]} ended with exit code {answer.returncode}"
    return None
