"""The pipeline on more and more devices: costs from a plan's assumptions, everything else simulated."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from conf.load import load
from conf.schema.root import TrainConfig
from conf.schema.simulation import SimulationConfig
from measure.scaling.costs import assumed
from measure.scaling.run import Simulated, simulated
from rollout.replayed_lengths import typical_lengths
from rollout.shape import ModelShape, shape_of
from trainer.plan.build import device_of, learner_of, rollout_of, sequences_held, work_of
from trainer.plan.layout import Machine
from trainer.plan.machine import assumed as assumed_machine
from trainer.plan.scaling import scaled

BOUND = 0.1
"""A wait above this share of the step is worth a device of the other kind."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    devices: int
    ranks: int
    workers: int
    prompts: int
    max_staleness: int
    driver_s: float
    """Of the step, the driver's own time between stages, as assumed; the simulation counts it into training."""
    found: Simulated

    @property
    def per_device(self) -> float:
        """Completions a second and device."""
        return self.found.completions_per_s / self.devices

    def as_json(self) -> dict[str, Any]:
        return {
            "devices": self.devices,
            "ranks": self.ranks,
            "workers": self.workers,
            "prompts": self.prompts,
            "max_staleness": self.max_staleness,
            "driver_s": self.driver_s,
            "completions_per_s_per_device": self.per_device,
            "limit": limit(self),
            **asdict(self.found),
        }


def table(config: SimulationConfig) -> Iterator[Row]:
    """Each number of devices, divided between ranks and workers as the plan finds best; left out where none fits."""
    base = load(TrainConfig, "train", config.train)
    shape, machine = shape_of(base.model), assumed_machine(base)
    for devices in config.devices:
        prompts = max(base.pipeline.prompts_per_step, math.ceil(config.prompts_per_device * devices))
        for staleness in config.max_staleness:
            train = _with(base, prompts=prompts, max_staleness=staleness)
            row = _row(train, shape, machine, devices, config)
            if row is not None:
                yield row


def _with(base: TrainConfig, *, prompts: int, max_staleness: int) -> TrainConfig:
    pipeline = base.pipeline.model_copy(update={"prompts_per_step": prompts, "max_staleness": max_staleness})
    return base.model_copy(update={"pipeline": pipeline})


def _row(train: TrainConfig, shape: ModelShape, machine: Machine, devices: int, config: SimulationConfig) -> Row | None:
    best = [row for row in scaled(train, shape, machine, largest=devices) if row.devices == devices]
    if not best:
        return None
    division = best[0]
    divided = train.model_copy(
        update={
            "learner": train.learner.model_copy(update={"ranks": division.ranks}),
            "rollout": train.rollout.model_copy(update={"workers": division.workers}),
            "pipeline": train.pipeline.model_copy(update={"prompts_per_step": division.prompts}),
        }
    )
    work = work_of(divided)
    costs = assumed(
        shape,
        learner_of(divided),
        rollout_of(divided),
        work,
        device_of(divided),
        fits=sequences_held(divided, shape, machine),
        lengths=typical_lengths(work.completion_tokens),
        score_group_s=config.score_group_s,
        scorers=config.scorers,
        completion_s=config.completion_s,
        equal_share=config.equal_share,
    )
    found = simulated(divided, costs, steps=config.steps, workers=division.workers)
    return Row(
        devices=devices,
        ranks=division.ranks,
        workers=division.workers,
        prompts=division.prompts,
        max_staleness=train.pipeline.max_staleness,
        driver_s=costs.completion_s * division.prompts * divided.rollout.group_size,
        found=found,
    )


def limit(row: Row) -> str:
    """What holds the step up most, and what to add."""
    found = row.found
    stages = found.seconds_by_stage
    shares = {
        "rollout: add workers, or go further ahead": stages["generate"] / found.step_s,
        "rewards: add scorers": stages["score"] / found.step_s,
        "weight updates: a faster link, or deltas": stages["sync"] / found.step_s,
        "driver: more than one, or less work a completion": row.driver_s / found.step_s,
    }
    name, share = max(shares.items(), key=lambda item: item[1])
    return name if share > BOUND else "learner: add ranks"


COLUMNS = (
    "devices",
    "ranks",
    "workers",
    "prompts",
    "stale",
    "step s",
    "compl/s",
    "per dev",
    "wait",
    "idle",
    "driver s",
)
HEAD = "".join(f"{name:>9}" for name in COLUMNS) + "  limit\n"


def line(row: Row) -> str:
    """The row under HEAD."""
    found = row.found
    cells = (
        f"{row.devices}",
        f"{row.ranks}",
        f"{row.workers}",
        f"{row.prompts}",
        f"{row.max_staleness}",
        f"{found.step_s:.2f}",
        f"{found.completions_per_s:,.0f}",
        f"{row.per_device:.2f}",
        f"{100 * found.trainer_wait_share:.0f} %",
        f"{100 * found.rollout_idle_share:.0f} %",
        f"{found.driver_cpu_s:.2f}",
    )
    return "".join(f"{cell:>9}" for cell in cells) + f"  {limit(row)}\n"
