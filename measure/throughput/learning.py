"""Reward against samples, for this trainer's variants and for TRL's, over several seeds."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from conf.output import replace_text
from conf.schema.throughput import ThroughputConfig
from measure.throughput.blocks import Block, our_block, peer_block
from measure.throughput.curves import Curve, draw
from measure.throughput.jobs import Job, make_job

LABELS = {
    "synchronous": "Quorum, synchronous, all groups",
    "dropping": "Quorum, zero-variance groups dropped",
    "one_step_ahead": "Quorum, one step ahead",
    "dropping_one_step_ahead": "Quorum, dropped and one step ahead",
    "trl": "TRL GRPOTrainer",
}


def learn(config: ThroughputConfig, folder: Path) -> dict[str, Any]:
    """Trains the short job from each seed's own warm-up with every system; writes learning.svg.

    The plot lies beside output=FILE, or in `folder`. Raises RunFailed.
    """
    rewards: dict[str, list[list[float]]] = {}
    samples: list[float] = []
    for seed in config.learning.seeds:
        job = make_job("short", config.model_copy(update={"seed": seed}), folder)
        for name in (*job.variants, "trl"):
            block = _block(name, job, config, folder, seed)
            rewards.setdefault(name, []).append([step.reward for step in block.steps])
            samples = _running([step.completions for step in block.steps])
    curves = [_curve(name, samples, of) for name, of in rewards.items()]
    plot = learning_plot(config, folder)
    replace_text(plot, draw(curves, x="completions sampled", y="mean reward of the step's completions"))
    return {
        "plot": str(plot),
        "seeds": config.learning.seeds,
        "samples": samples,
        "rewards": rewards,
        "last_quarter": {name: _last_quarter(of) for name, of in rewards.items()},
    }


def learning_plot(config: ThroughputConfig, folder: Path) -> Path:
    """Where the plot lies: beside output=FILE, or in `folder`."""
    return (Path(config.output).resolve().parent if config.output is not None else folder) / "learning.svg"


def _block(name: str, job: Job, config: ThroughputConfig, folder: Path, seed: int) -> Block:
    label, steps = f"learning-{name}-seed{seed}", config.learning.steps
    if name == "trl":
        return peer_block(job, config, folder, name=label, steps=steps, seed=seed)
    variant = next(variant for variant in job.variants if variant == name)
    return our_block(job, variant, config, folder, name=label, steps=steps, seed=seed)[0]


def _running(values: Sequence[float]) -> list[float]:
    return [sum(values[: place + 1]) for place in range(len(values))]


def _curve(name: str, samples: Sequence[float], seeds: Sequence[Sequence[float]]) -> Curve:
    columns = list(zip(*seeds, strict=True))
    return Curve(
        label=LABELS[name],
        x=tuple(samples),
        mean=tuple(map(fmean, columns)),
        low=tuple(map(min, columns)),
        high=tuple(map(max, columns)),
    )


def _last_quarter(seeds: Sequence[Sequence[float]]) -> dict[str, float]:
    """Mean reward over the last quarter of the steps: over seeds, lowest and highest seed."""
    ends = [fmean(rewards[-max(1, len(rewards) // 4) :]) for rewards in seeds]
    return {"mean": fmean(ends), "low": min(ends), "high": max(ends)}
