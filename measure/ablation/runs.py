"""The training runs of an ablation: which settings each has, and running one as a process of its own.

Every variant differs from the reference in one component. Switching the format off takes its gate with it: the gate is
what the component does beside its point.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from conf.child import module_command
from conf.load import quoted
from conf.schema.ablation import AblationConfig
from measure.processes import RunFailed, run_process

REFERENCE = "finer"
SETTINGS: dict[str, tuple[str, ...]] = {
    REFERENCE: (),
    "strict": ("reward=strict",),
    "without_execution": ("reward.execution.enabled=false",),
    "without_atomic": ("reward.atomic.enabled=false",),
    "without_memory": ("reward.memory.enabled=false",),
    "without_format": ("reward.format.enabled=false",),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedRun:
    variant: str
    seed: int
    folder: Path
    arguments: tuple[str, ...]
    """Of `python -m trainer`."""

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def log(self) -> Path:
        return self.folder.with_name(f"{self.name}.log")


def planned(config: AblationConfig) -> list[PlannedRun]:
    """All runs, seed by seed, the reference first: it makes the seed's warm-up and the evaluation before training."""
    return [_plan(config, variant, seed) for seed in config.seeds for variant in (REFERENCE, *config.variants)]


def _plan(config: AblationConfig, variant: str, seed: int) -> PlannedRun:
    name = f"{variant}-seed{seed}"
    arguments = (
        "experiment=quickstart_reasoning",
        f"seed={seed}",
        f"run.dir={quoted(config.output)}",
        f"run.name={name}",
        "resume=auto",
        "logging.progress=plain",
        f"pipeline.steps={config.steps}",
        f"evaluation.before={'true' if variant == REFERENCE else 'false'}",
        f"evaluation.every={config.evaluate_every}",
        f"evaluation.tasks={config.tasks}",
        f"evaluation.n={config.n}",
        "evaluation.instances=primary",
        *config.settings,
        *SETTINGS[variant],
    )
    return PlannedRun(variant=variant, seed=seed, folder=Path(config.output) / name, arguments=arguments)


def finished(plan: PlannedRun, steps: int) -> bool:
    """Whether the folder holds the run with all its steps."""
    try:
        told = json.loads((plan.folder / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # none, or cut short: the trainer says what to do about the folder
        return False
    return isinstance(told, dict) and told.get("status") == "finished" and told.get("steps") == steps


def train(plan: PlannedRun, *, steps: int, timeout_s: float) -> None:
    """Runs the trainer to the end. Raises RunFailed, which names the log."""
    command = module_command("trainer", *plan.arguments)
    code = run_process(command, name=plan.name, log=plan.log, timeout_s=timeout_s)
    if code or not finished(plan, steps):
        raise RunFailed(f"{plan.name} ended with exit code {code} before step {steps}: see {plan.log}")
