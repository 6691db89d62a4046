"""How fast and how steady rewards are (python -m benchmarks.rewards)."""

from typing import Literal

from pydantic import NonNegativeInt, PositiveInt

from conf.schema.base import Section

Measure = Literal["throughput", "memory", "reference", "soak"]


class RewardBenchmarkConfig(Section):
    root: str
    """Folder with spider/, bird/ (published layouts) and predictions/*.txt, *.json."""
    measures: tuple[Measure, ...] = ("throughput", "memory", "reference", "soak")
    executors: PositiveInt = 2
    repeats: PositiveInt = 3
    """Throughput runs, each with cold caches; the median counts."""
    traces: PositiveInt = 10_000
    """Verified traces in the store of the memory measure."""
    reference_completions: PositiveInt = 512
    """Completions scored by the reference's way, and by ours beside it."""
    soak_completions: PositiveInt = 100_000
    output: str | None = None
    """JSON file for the figures."""
    seed: NonNegativeInt = 0
