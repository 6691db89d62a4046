"""Optimizer steps as the records of both trainers tell them, and what they amount to. Pure, but for reading files."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from measure.throughput.arithmetic import GroupLengths
from records.files import read_rows

STAGES = ("generate", "score", "train", "sync")


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One optimizer step."""

    wall_s: float | None
    """From the end of the step before; None for the first."""
    completions: float
    generated_tokens: float
    tokens_trained: float
    """Completion tokens that entered the loss."""
    tokens_forwarded: float
    """Tokens that the learner forwarded, prompts and padding included."""
    seconds: dict[str, float]
    """By stage, as far as the trainer waited for it."""
    reward: float
    row: dict[str, Any]
    """The record itself."""


def our_steps(folder: Path) -> list[Step]:
    """From a run folder. Wall time is taken from one row to the next, so that nothing between steps is left out."""
    rows = [row for row in read_rows(folder / "metrics.jsonl") if row.get("perf/completions") is not None]
    return [
        Step(
            wall_s=None if before is None else row["perf/elapsed_s"] - before["perf/elapsed_s"],
            completions=row["perf/completions"],
            generated_tokens=row["perf/generated_tokens"],
            tokens_trained=row.get("perf/tokens_trained") or 0.0,
            tokens_forwarded=row.get("perf/tokens_forwarded") or 0.0,
            seconds={stage: row.get(f"perf/{stage}_s") or 0.0 for stage in STAGES},
            reward=row["reward/total/mean"],
            row=row,
        )
        for before, row in zip([None, *rows[:-1]], rows, strict=True)
    ]


def peer_steps(file: Path) -> list[Step]:
    """From what measure/throughput/peer.py writes. Training is what generation and scoring leave of a step."""
    rows = list(read_rows(file))
    steps = []
    for before, row in zip([None, *rows[:-1]], rows, strict=True):
        wall = None if before is None else row["end"] - before["end"]
        known = row["seconds"]
        rest = 0.0 if wall is None else wall - sum(known.values())
        steps.append(
            Step(
                wall_s=wall,
                completions=row["completions"],
                generated_tokens=row["generated_tokens"],
                tokens_trained=row["tokens_trained"],
                tokens_forwarded=row["tokens_forwarded"],
                seconds=known | {"train": rest, "sync": 0.0},
                reward=row["reward"],
                row=row,
            )
        )
    return steps


def our_tasks(folder: Path) -> list[set[str]]:
    """Ids of the tasks that each step took."""
    return [{entry[1] for entry in (*row["trained"], *row["dropped"])} for row in read_rows(folder / "ledger.jsonl")]


def recorded_lengths(folder: Path, *, step: int) -> list[GroupLengths]:
    """Of the groups that a run wrote in full at `step`."""
    rows = [row for row in read_rows(folder / "samples.jsonl") if row["step"] == step]
    written = [[(c["text"], c["tokens"]) for c in row["completions"]] for row in rows]
    return [
        GroupLengths(
            prompt=row["prompt_tokens"],
            completions=tuple(tokens for _, tokens in completions),
            distinct=tuple(tokens for _, tokens in dict.fromkeys(completions)),
        )
        for row, completions in zip(rows, written, strict=True)
    ]


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """Medians over the measured steps of all blocks."""

    steps: int
    step_s: float
    completions_per_s: float
    generated_tokens_per_s: float
    trained_over_forwarded: float
    """Completion tokens in the loss over tokens that the learner forwarded."""
    seconds_by_stage: dict[str, float]
    by_round: tuple[float, ...]
    """Completions a second of each block, for the machine's drift."""


def figures(blocks: Sequence[Sequence[Step]]) -> Figures:
    """Of at least one block of at least one step, each with its wall time."""
    steps = [step for block in blocks for step in block]
    forwarded = sum(step.tokens_forwarded for step in steps)
    stages = {stage: median(step.seconds[stage] for step in steps) for stage in STAGES}
    wall = median(_walls(steps))
    return Figures(
        steps=len(steps),
        step_s=wall,
        completions_per_s=_rate(steps),
        generated_tokens_per_s=median(step.generated_tokens for step in steps) / wall,
        trained_over_forwarded=sum(step.tokens_trained for step in steps) / forwarded if forwarded else 0.0,
        seconds_by_stage=stages | {"other": max(0.0, wall - sum(stages.values()))},
        by_round=tuple(_rate(block) for block in blocks),
    )


def _walls(steps: Iterable[Step]) -> list[float]:
    walls = [step.wall_s for step in steps]
    return [wall for wall in walls if wall is not None]


def _rate(steps: Sequence[Step]) -> float:
    return median(step.completions for step in steps) / median(_walls(steps))
