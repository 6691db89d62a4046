"""Breaking small training runs on purpose (python -m measure.chaos)."""

from typing import Literal

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from conf.schema.base import PathText, Section, Word

FaultName = Literal[
    "rollout_worker_dies",
    "rollout_worker_hangs",
    "rollout_node_lost",
    "weight_update_lost",
    "weight_update_half_applied",
    "reward_actor_dies",
    "reward_actor_hangs",
    "reward_server_gone",
    "executor_dies",
    "executor_hangs",
    "learner_dies",
    "learner_and_worker_die",
    "gradients_not_finite",
    "driver_dies",
    "sigterm",
    "disk_full_stops",
    "disk_full_goes_on",
]


class SoakConfig(Section):
    steps: PositiveInt = 300
    every: PositiveInt = 20
    """Optimizer steps between two faults."""


class ChaosConfig(Section):
    output: PathText
    """Folder that receives summary.json, and a run folder and a log for each fault. Runs of an earlier call with the
    same names there are removed; the warm-up and the databases are used again."""
    faults: tuple[FaultName, ...] = ()
    """What is done to the runs, one run each (none given: everything)."""
    undisturbed: PathText | None = None
    """Run folder that an earlier call with the same settings left (output/undisturbed), instead of a new run."""
    soak: bool = False
    """Instead: one long run with a random fault now and then, beside an undisturbed one."""
    soaking: SoakConfig = SoakConfig()
    steps: PositiveInt = 8
    """Optimizer steps asked of each run."""
    at_step: PositiveInt = 3
    """The fault comes when this step is done."""
    seed: NonNegativeInt = 0
    settings: tuple[Word, ...] = ()
    """More settings of the trainer, name=value, for every run."""
    run_timeout_s: PositiveFloat = 900.0
    """Longest wait for a run to do another step, and to recover from a fault."""

    @model_validator(mode="after")
    def _room_after_the_fault(self) -> "ChaosConfig":
        if self.at_step + 2 > self.steps:
            raise ValueError(
                f"at_step={self.at_step} leaves too little of steps={self.steps}: at least two must follow"
            )
        return self
