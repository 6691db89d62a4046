"""This trainer and TRL's, block by block in turn, on one job."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from conf.child import module_command
from conf.schema.throughput import ThroughputConfig
from measure.processes import RunFailed
from measure.throughput.arithmetic import generation_flops, training_flops
from measure.throughput.blocks import TAIL, Block, check_same_data, our_block, peer_block
from measure.throughput.jobs import Job
from measure.throughput.steps import Figures, figures, recorded_lengths
from measure.throughput.summary import summary
from rollout.shape import ModelShape, from_config

PEAK_TIMEOUT_S = 120.0


def compare(job: Job, config: ThroughputConfig, folder: Path) -> dict[str, Any]:
    """What output=FILE receives for the job. Raises RunFailed."""
    blocks: dict[str, list[Block]] = {name: [] for name in (*job.variants, "trl")}
    peaks: list[float] = []
    last = folder
    for number in range(config.rounds):
        for variant in job.variants:
            _tell(f"{job.name}: round {number + 1}, {variant}")
            block, run = our_block(
                job,
                variant,
                config,
                folder,
                name=f"{job.name}-{variant}-{number}",
                steps=config.warmup_steps + config.steps + TAIL,
                seed=config.seed,
            )
            blocks[variant].append(block)
            _tell_rate(block, config)
            last = run if variant == "synchronous" else last
        _tell(f"{job.name}: round {number + 1}, trl")
        steps = config.warmup_steps + config.steps
        theirs = peer_block(job, config, folder, name=f"{job.name}-trl-{number}", steps=steps, seed=config.seed)
        check_same_data(blocks["synchronous"][-1], theirs)
        blocks["trl"].append(theirs)
        _tell_rate(theirs, config)
        peaks.append(measured_peak(config))
    found = {
        name: figures([block.measured(config.warmup_steps, config.steps) for block in of])
        for name, of in blocks.items()
    }
    shape = from_config(json.loads((job.policy / "config.json").read_text(encoding="utf-8")))
    floor = _floor(shape, last, step=config.warmup_steps + config.steps + TAIL, peak=max(peaks), found=found)
    result = _result(job, found, floor)
    if config.weights == "random":
        for name in job.variants:
            counted = [block.measured(config.warmup_steps, config.steps) for block in blocks[name]]
            result["variants"][name]["device"] = summary(
                [step for steps in counted for step in steps], shape, max(peaks)
            )
    return result


def _result(job: Job, found: dict[str, Figures], floor: dict[str, float]) -> dict[str, Any]:
    ours, theirs = found["synchronous"], found["trl"]
    variants = {
        name: asdict(found[name]) | {"ratio": found[name].completions_per_s / theirs.completions_per_s}
        for name in job.variants
    }
    return {
        "ratio": ours.completions_per_s / theirs.completions_per_s,
        "ratio_of": "synchronous, all groups trained: the peer's own algorithm",
        "ours_completions_per_s": ours.completions_per_s,
        "trl_completions_per_s": theirs.completions_per_s,
        "ratios": {name: variant["ratio"] for name, variant in variants.items()},
        "seconds_by_stage": {"ours": ours.seconds_by_stage, "trl": theirs.seconds_by_stage},
        "step_s": {"ours": ours.step_s, "trl": theirs.step_s},
        "trained_over_forwarded": {"ours": ours.trained_over_forwarded, "trl": theirs.trained_over_forwarded},
        "variants": variants,
        "trl": asdict(theirs),
        "floor": floor,
    }


def _floor(shape: ModelShape, run: Path, *, step: int, peak: float, found: dict[str, Figures]) -> dict[str, float]:
    """The arithmetic of one step at the machine's peak, and how far both trainers are from it."""
    groups = recorded_lengths(run, step=step)
    generation, training = generation_flops(shape, groups), training_flops(shape, groups)
    seconds = (generation + training) / peak
    return {
        "generation_gflop": generation / 1e9,
        "training_gflop": training / 1e9,
        "peak_gflops": peak / 1e9,
        "floor_s": seconds,
        "ours_over_floor": found["synchronous"].step_s / seconds,
        "trl_over_floor": found["trl"].step_s / seconds,
    }


def measured_peak(config: ThroughputConfig) -> float:
    """FLOP/s of matrix products now, in the precision that is trained in. Raises RunFailed."""
    kind = ("bfloat16", "cuda") if config.device == "gpu" else ("float32", "cpu")
    command = module_command("measure.throughput.peak", str(config.cores), *kind)
    done = subprocess.run(command, capture_output=True, text=True, timeout=PEAK_TIMEOUT_S)
    if done.returncode:
        raise RunFailed(f"the machine's peak could not be measured: {done.stderr.strip().splitlines()[-1:]}")
    return float(done.stdout)


def table(result: dict[str, Any]) -> str:
    """A few lines for the terminal."""
    lines = [
        f"{'':<26}{'completions/s':>14}{'step s':>9}{'ratio':>8}   " + "".join(f"{s:>10}" for s in _STAGES),
    ]
    rows = [*result["variants"].items(), ("trl", result["trl"] | {"ratio": 1.0})]
    for name, row in rows:
        stages = "".join(f"{row['seconds_by_stage'][stage]:>10.3f}" for stage in _STAGES)
        lines.append(
            f"{name:<26}{row['completions_per_s']:>14.1f}{row['step_s']:>9.3f}{row['ratio']:>7.2f}x   {stages}"
        )
    floor = result["floor"]
    lines.append(
        f"floor: {floor['generation_gflop'] + floor['training_gflop']:.1f} GFLOP at {floor['peak_gflops']:.0f} GFLOP/s "
        f"= {floor['floor_s']:.3f} s; ours {floor['ours_over_floor']:.1f}x, TRL {floor['trl_over_floor']:.1f}x of it"
    )
    return "\n".join(lines) + "\n"


_STAGES = ("generate", "score", "train", "sync", "other")


def _tell_rate(block: Block, config: ThroughputConfig) -> None:
    """Of one block, so that a comparison that is cut short has said something."""
    found = figures([block.measured(config.warmup_steps, config.steps)])
    stages = ", ".join(f"{stage} {found.seconds_by_stage[stage]:.2f}" for stage in _STAGES)
    _tell(f"  {found.completions_per_s:.1f} completions/s, {found.step_s:.2f} s a step: {stages}")


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
