"""The pipeline simulated beyond the machines at hand (python -m measure.scaling)."""

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, field_validator

from conf.schema.base import PathText, Section, Word


class SimulationConfig(Section):
    calibrate: tuple[PathText, ...] = ()
    """Run folders of synchronous runs that the costs of the stages are fitted to; two batch sizes make the fit
    definite."""
    check: tuple[PathText, ...] = ()
    """Run folders of other settings on the same machine, which the simulation must predict."""
    tolerance: PositiveFloat = 0.15
    """Largest relative error of a predicted step."""
    train: tuple[Word, ...] = (
        "experiment=finer_3b_bird",
        "data.root=not-read",
        "cluster=nodes",
        "pipeline.prompts_per_step=64",
        "plan.gpu_memory_gib=80",
        "plan.prompt_tokens=1500",
        "plan.completion_tokens=300",
    )
    """Settings of the training that is simulated on more and more devices; plan.* are what it assumes of them."""
    devices: tuple[PositiveInt, ...] = (2, 8, 32, 128, 512, 1024)
    """Powers of two from 2 on."""
    prompts_per_device: NonNegativeFloat = 8.0
    """The batch grows to this many prompts for each device (0: it stays at pipeline.prompts_per_step)."""
    max_staleness: tuple[NonNegativeInt, ...] = (0, 1)
    steps: int = Field(default=7, ge=5)
    score_group_s: PositiveFloat = 0.02
    """Assumed time to score one group."""
    scorers: PositiveInt = 16
    """Assumed groups scored at once."""
    completion_s: NonNegativeFloat = 3e-5
    """Assumed time of the driver for each completion of a step."""
    equal_share: float = Field(default=0.3, ge=0.0, lt=1.0)
    """Assumed share of groups whose rewards are all equal."""
    output: PathText | None = None
    """JSON file for the figures."""

    @field_validator("devices")
    @classmethod
    def _powers_of_two(cls, devices: tuple[int, ...]) -> tuple[int, ...]:
        wrong = [count for count in devices if count < 2 or count & (count - 1)]
        if wrong:
            raise ValueError(f"{wrong[0]} is not one of 2, 4, 8, ...")
        return devices
