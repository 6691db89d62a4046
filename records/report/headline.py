"""The numbers at the top of the page: what the run reached and what it cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from records.sinks.console import duration

Json = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Tile:
    label: str
    value: str
    before: str = ""
    """The value before training, where there is one."""
    change: str = ""
    trend: str = "flat"
    """up, down or flat: the sign of the change."""
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageShare:
    stage: str
    seconds: str
    percent: float


def _accuracy(label: str, before: float | None, after: float | None, note: str) -> Tile | None:
    if after is None:
        return None if before is None else Tile(label=label, value=f"{100 * before:.1f} %", note="before training")
    if before is None:
        return Tile(label=label, value=f"{100 * after:.1f} %", note=note)
    points = 100 * (after - before)
    return Tile(
        label=label,
        value=f"{100 * after:.1f} %",
        before=f"{100 * before:.1f} %",
        change=f"{points:+.1f} points",
        trend="up" if points > 0.05 else "down" if points < -0.05 else "flat",
        note=note,
    )


def results(summary: Json, evaluated: int = 0) -> tuple[Tile, ...]:
    """Held-out accuracies and the reward; what was not measured has no tile. `evaluated`: the step of the accuracies
    after training, which a run that did not end well has passed."""
    n = summary["n"]
    at = f", step {evaluated}" if 0 < evaluated < summary["steps"] else ""
    greedy, mean = "one answer a question" + at, f"of {n} samples{at}"
    tiles = [
        _accuracy("Greedy accuracy", summary["greedy_ex_before"], summary["greedy_ex_after"], greedy),
        _accuracy("Mean accuracy", summary["mean_at_n_before"], summary["mean_at_n_after"], mean),
        _accuracy("Voting accuracy", None, summary["vav_ex_after"], f"chosen among {n} samples{at}"),
        _accuracy("Recall", None, summary["recall_at_n_after"], f"one of {n} samples is right{at}"),
    ]
    first, last = summary["reward_first"], summary["reward_last"]
    if first is not None and last is not None:
        change = last - first
        tiles.append(
            Tile(
                label="Training reward",
                value=f"{last:.3f}",
                before=f"{first:.3f}",
                change=f"{change:+.3f}",
                trend="up" if change > 0 else "down" if change < 0 else "flat",
                note="first to last step",
            )
        )
    return tuple(tile for tile in tiles if tile is not None)


def costs(summary: Json) -> tuple[Tile, ...]:
    """Time, throughput, memory and what was left out."""
    lost = summary["unscorable"]
    tiles = (
        Tile(label="Wall time", value=duration(summary["wall_s"])),
        Tile(
            label="Completions",
            value=f"{summary['completions']:,}",
            note=f"{summary['completions_per_s']:.1f} a second of training steps",
        ),
        Tile(label="Tokens trained", value=f"{summary['tokens_trained']:,}"),
        Tile(label="Groups dropped", value=f"{summary['groups_dropped']:,}", note="no signal, stale or unscorable"),
        Tile(
            label="Unscorable",
            value=f"{lost:,}",
            note="completions lost by the infrastructure",
            trend="down" if lost else "flat",
        ),
    )
    memory = summary["peak_rss_gib"]
    return (*tiles, Tile(label="Peak memory", value=f"{memory:.1f} GiB")) if memory else tiles


LABELS = {"check": "data check", "warmup": "warm-up", "render": "prompts", "start": "start of engines"}
"""Of the stages whose name alone says too little."""


def stage_shares(seconds: Mapping[str, float]) -> Sequence[StageShare]:
    """Each stage's part of the time that the stages took together."""
    total = sum(seconds.values())
    return [
        StageShare(stage=LABELS.get(stage, stage), seconds=duration(value), percent=round(100 * value / total, 2))
        for stage, value in seconds.items()
        if value > 0
    ]
