"""This trainer alone, with random weights of any shape: what a device makes of generation, training and weight updates.

The quickstart's questions with evidence up to the prompt's length; completion lengths are drawn from a recorded
distribution. Rewards are real, and worth nothing: all groups are kept.
"""

from pathlib import Path
from typing import Any

from conf.errors import QuorumError
from conf.load import quoted
from conf.schema.throughput import ThroughputConfig
from measure.throughput.blocks import TAIL, our_block
from measure.throughput.comparison import measured_peak
from measure.throughput.jobs import Job, random_weights, sized_settings
from measure.throughput.summary import summary
from records.files import read_rows
from rollout.replayed_lengths import typical_lengths
from rollout.shape import shape_of


def measure(config: ThroughputConfig, folder: Path) -> dict[str, Any]:
    """Runs one block and returns its figures. Raises RunFailed, ShapeUnknown."""
    shape = shape_of(config.model)
    job = _job(config, folder)
    steps = config.warmup_steps + config.steps + TAIL
    block, _ = our_block(job, "synchronous", config, folder, name="alone", steps=steps, seed=config.seed)
    tflops = config.measure.peak_tflops
    peak = tflops * 1e12 if tflops is not None else measured_peak(config)
    return summary(block.measured(config.warmup_steps, config.steps), shape, peak)


def show(figures: dict[str, Any]) -> str:
    return "".join(f"{name:<26}{value}\n" for name, value in figures.items())


def _job(config: ThroughputConfig, folder: Path) -> Job:
    policy, tasks = random_weights(config, folder)
    lengths = folder / "lengths.txt"
    lengths.write_text("\n".join(map(str, _lengths(config))) + "\n", encoding="utf-8")
    return Job(
        name="alone",
        policy=policy,
        micro_batch=1,
        variants=("synchronous",),
        settings=settings_of(config, policy=policy, tasks=tasks, lengths=lengths),
    )


def settings_of(config: ThroughputConfig, *, policy: Path, tasks: Path, lengths: Path) -> tuple[str, ...]:
    """Of `python -m trainer`."""
    sized = sized_settings(config, policy=policy, tasks=tasks, max_tokens=config.measure.max_tokens)
    return (*sized, f"rollout.lengths={quoted(str(lengths))}", *config.settings)


def _lengths(config: ThroughputConfig) -> list[int]:
    sizes = config.measure
    if sizes.lengths is None:
        return typical_lengths(sizes.completion_tokens)
    lengths = [c["tokens"] for row in read_rows(Path(sizes.lengths)) for c in row["completions"] if c["tokens"]]
    if not lengths:
        raise QuorumError(f"measure.lengths={sizes.lengths}: no samples.jsonl with completions")
    return lengths
