"""The pipeline simulated beyond the machines at hand (python -m benchmarks.scaling)."""

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from conf.schema.base import Section


class SimulationConfig(Section):
    calibrate: tuple[str, ...] = ()
    """Run folders of synchronous runs that the costs of the stages are fitted to; two batch sizes make the fit
    definite."""
    check: tuple[str, ...] = ()
    """Run folders of other settings on the same machine, which the simulation must predict."""
    tolerance: PositiveFloat = 0.15
    """Largest relative error of a predicted step."""
    train: tuple[str, ...] = (
        "experiment=finer_3b_bird",
        "data.root=not-read",
        "cluster=nodes",
        "learner.packing=shared_prefix",
        "pipeline.prompts_per_step=64",
        "plan.prompt_tokens=1500",
        "plan.completion_tokens=300",
    )
    """Settings of the training that is simulated on more and more devices; plan.* are what it assumes of them."""
    largest: PositiveInt = 1024
    """Devices; powers of two up to it are simulated."""
    prompts_per_device: NonNegativeFloat = 8.0
    """The batch grows to this many prompts for each device (0: it stays at pipeline.prompts_per_step)."""
    max_staleness: tuple[NonNegativeInt, ...] = (0, 1, 2)
    steps: int = Field(default=12, ge=5)
    score_group_s: PositiveFloat = 0.02
    """Assumed time to score one group."""
    scorers: PositiveInt = 16
    """Assumed groups scored at once."""
    completion_s: NonNegativeFloat = 3e-5
    """Assumed time of the driver for each completion of a step."""
    equal_share: float = Field(default=0.3, ge=0.0, lt=1.0)
    """Assumed share of groups whose rewards are all equal."""
    seed: NonNegativeInt = 0
    output: str | None = None
    """JSON file for the figures."""
