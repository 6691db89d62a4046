"""How fast, how steady and how easily gamed rewards are (python -m measure.rewards)."""

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from conf.schema.base import PathText, Section

Measure = Literal["throughput", "memory", "reference", "soak", "gaming"]


class RewardBenchmarkConfig(Section):
    root: PathText
    """Folder with spider/, bird/ (published layouts) and predictions/*.txt, *.json."""
    measures: tuple[Measure, ...] = Field(("throughput", "memory", "reference", "soak", "gaming"), min_length=1)
    executors: PositiveInt = 2
    repeats: PositiveInt = 3
    """Throughput runs, each with cold caches; the median counts."""
    traces: PositiveInt = 10_000
    """Verified traces in the store of the memory measure."""
    reference_completions: PositiveInt = 512
    """Completions scored by the reference's way, and by ours beside it."""
    soak_completions: PositiveInt = 100_000
    limit: PositiveInt | None = None
    """gaming: this many questions of each data set, evenly spaced (None: all)."""
    instances: PathText | None = None
    """gaming: a folder that python -m curation.instances made; its databases take the place of those of `root`,
    which keeps those that are not there."""
    output: PathText | None = None
    """JSON file for the figures."""
    seed: NonNegativeInt = 0

    @model_validator(mode="after")
    def _says_what_is_measured(self) -> "RewardBenchmarkConfig":
        for name in ("limit", "instances"):
            if name in self.model_fields_set and "gaming" not in self.measures:
                raise ValueError(f"{name} has no effect without the measure gaming: add it to measures, or drop {name}")
        return self
