"""What of the listed runs may be deleted: checkpoints that nothing refers to, and rows whose folder is gone.

Kept: a run's newest checkpoint (resume needs it), the best evaluated one, and every checkpoint that another run names
as its parent. Runs that a process writes into are left alone. Logs, metrics, ledgers and reports are never touched.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from records.checkpoint import finished, remove, step_of
from records.files import read_rows
from records.index.index import RunIndex, RunRow
from records.run_folder import CHECKPOINTS, METRICS, is_open

BEST = "eval/greedy_ex"
"""The metric whose highest value makes a checkpoint the best."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Garbage:
    """What `collect` would delete."""

    folders: tuple[tuple[Path, int], ...]
    """(folder, bytes)."""
    rows: tuple[RunRow, ...]
    """Runs whose folder no longer exists."""


def checkpoints(run: Path) -> list[Path]:
    """A run's finished checkpoints, oldest first; what they hold is not looked at."""
    return finished(run / CHECKPOINTS)


def best_checkpoint(run: Path) -> Path | None:
    """The checkpoint whose step was evaluated best (the later of equals); None when no checkpoint was evaluated."""
    scores = {row["step"]: row[BEST] for row in read_rows(run / METRICS) if row.get(BEST) is not None}
    steps = {step_of(folder): folder for folder in checkpoints(run)}
    scored = [(scores[step], step) for step in steps if step in scores]
    return steps[max(scored)[1]] if scored else None


def garbage(rows: Sequence[RunRow]) -> Garbage:
    """Looks only."""
    parents = {Path(row.parent).resolve() for row in rows if row.parent}
    folders: list[tuple[Path, int]] = []
    for row in rows:
        run = Path(row.folder)
        if not run.is_dir() or is_open(run):
            continue
        whole = checkpoints(run)
        kept = {*whole[-1:], best_checkpoint(run)}
        loose = [folder for folder in whole if folder not in kept and folder.resolve() not in parents]
        # Left behind by a driver that was killed while it wrote.
        loose += sorted((run / CHECKPOINTS).glob(".step-*.writing"))
        folders += [(folder, _bytes(folder)) for folder in loose]
    return Garbage(folders=tuple(folders), rows=tuple(row for row in rows if not Path(row.folder).is_dir()))


def collect(found: Garbage, index: RunIndex) -> None:
    """Deletes it."""
    for folder, _ in found.folders:
        remove(folder)
    if found.rows:
        index.forget([row.id for row in found.rows])


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
