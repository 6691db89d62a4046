"""The outcome of all faults: summary.json, and a table for the terminal and for docs."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import psutil

from conf.output import replace_text
from measure.chaos.trial import Row

COLUMNS = ("fault", "at step", "noticed s", "recovered s", "steps", "lost", "twice", "status")


def write_summary(file: Path, rows: Sequence[Row], *, settings: Sequence[str], usual_step_s: float) -> None:
    """A row a fault, in the order they were made, the undisturbed run's median step and the machine; replaces the file
    at once."""
    summary = {
        "machine": machine(),
        "settings": list(settings),
        "usual_step_s": usual_step_s,
        "faults": [asdict(row) for row in rows],
    }
    replace_text(file, json.dumps(summary, indent=1) + "\n")


def machine() -> dict[str, str | int | float]:
    """What the seconds were measured on."""
    return {
        "cpus": os.cpu_count() or 0,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
    }


def markdown(rows: Sequence[Row]) -> str:
    """A Markdown table."""
    lines = [list(COLUMNS), ["---"] * len(COLUMNS), *(_cells(row) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cells(row: Row) -> list[str]:
    return [
        row.fault,
        str(row.injected_at_step),
        _seconds(row.detected_s),
        _seconds(row.recovered_s),
        f"{row.steps_done}/{row.steps_asked}",
        str(row.groups_lost),
        str(row.groups_trained_twice),
        row.status,
    ]


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
