"""What a device makes of this trainer's steps: utilisation, rates by stage, weight updates, waits and memory. Pure."""

from statistics import fmean, median
from typing import Any

from measure.throughput.arithmetic import utilisation
from measure.throughput.steps import Step
from rollout.shape import ModelShape


def summary(steps: list[Step], shape: ModelShape, peak: float) -> dict[str, Any]:
    """Medians over the measured steps; utilisation as a share of `peak` FLOP/s."""

    def middle(stage: str) -> float:
        return median(step.seconds[stage] for step in steps)

    wall = median(step.wall_s for step in steps if step.wall_s is not None)
    forwarded = fmean(step.tokens_forwarded for step in steps)
    waited = middle("generate") + middle("score")
    generated = fmean(step.generated_tokens for step in steps)
    memory = [step.row.get("perf/gpu_memory_gib") for step in steps]
    parts = ("pause", "transfer", "resume")
    return {
        "parameters": shape.parameters,
        "peak_tflops": peak / 1e12,
        "step_s": wall,
        "completions_per_s": fmean(step.completions for step in steps) / wall,
        "generated_tokens_per_s": generated / middle("generate") if middle("generate") else 0.0,
        "train_tokens_per_s": forwarded / middle("train") if middle("train") else 0.0,
        "mfu_train": utilisation(shape, tokens=forwarded, seconds=middle("train"), peak=peak),
        "mfu_wall": utilisation(shape, tokens=forwarded, seconds=wall, peak=peak),
        "sync_s": middle("sync"),
        "sync_parts_s": {part: median(step.row.get(f"perf/sync_{part}_s") or 0.0 for step in steps) for part in parts},
        "trainer_wait_share": waited / wall,
        "completion_tokens_mean": generated / fmean(step.completions for step in steps),
        "gpu_memory_gib": max((value for value in memory if value is not None), default=None),
        "rss_gib": max(step.row["perf/rss_gib"] for step in steps),
    }
