"""Training the quickstart with one reward component off in turn (python -m measure.ablation)."""

from typing import Literal

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from conf.schema.base import PathText, Section, Word

Variant = Literal["strict", "without_execution", "without_atomic", "without_memory", "without_format"]
"""What is compared with `finer`, the reference, which always runs."""


class AblationConfig(Section):
    output: PathText
    """Folder that receives a run folder and a log for each variant and seed, ablation.json, ablation.md and
    ablation.svg. Runs that are finished there are not made again."""
    variants: tuple[Variant, ...] = (
        "strict",
        "without_execution",
        "without_atomic",
        "without_memory",
        "without_format",
    )
    seeds: tuple[NonNegativeInt, ...] = (0, 1, 2)
    steps: PositiveInt = 20
    """Optimizer steps of every run."""
    evaluate_every: PositiveInt = 5
    """Optimizer steps between evaluations."""
    tasks: PositiveInt = 320
    """Held-out tasks evaluated."""
    n: PositiveInt = 8
    """Sampled candidates a task."""
    settings: tuple[Word, ...] = ()
    """More settings of the trainer, name=value, for every run."""
    run_timeout_s: PositiveFloat = 7200.0
    """Longest time for one run."""
