"""A batch whose gradient was not finite, kept with the policy that met it: `python -m operate.replay` looks into it."""

import json
import os
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from conf.errors import QuorumError
from records.checkpoint import CheckpointFailed
from records.files import write_atomically
from trainer.carriers import SkippedUpdates, TrainingSequence

BATCH = "batch.json"
SKIPPED = "skipped"
"""Of a run; one folder a step: batch.json beside what a checkpoint holds of the learner."""


class TrainingDiverged(QuorumError):
    """Too many steps in a row had a gradient that was not finite."""


class BatchUnreadable(QuorumError):
    """The file is no batch that a run has kept."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SkippedBatch:
    step: int
    sequences: tuple[TrainingSequence, ...]
    task_ids: tuple[str, ...]
    """One for each value of TrainingSequence.group_index."""
    skipped: SkippedUpdates | None = None
    """None: written by a trainer that did not keep it."""
    reference: str | None = None
    """Folder of the policy that the run began with; None: as above."""


def write_batch(file: Path, batch: SkippedBatch) -> None:
    """JSON, with NaN and Infinity as Python writes them: they may be what is looked for."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, json.dumps(asdict(batch), default=sorted))  # a set of groups


async def keep(place: Path, batch: SkippedBatch, save: Callable[[Path], Awaitable[None]]) -> None:
    """The folder `place` with the batch and what `save` writes of the learner, whole or not at all.

    Raises CheckpointFailed.
    """
    hidden = place.with_name(f".{place.name}.writing")
    try:
        shutil.rmtree(hidden, ignore_errors=True)
        write_batch(hidden / BATCH, batch)
        await save(hidden)
        shutil.rmtree(place, ignore_errors=True)
        os.rename(hidden, place)
    except (OSError, CheckpointFailed) as error:
        raise CheckpointFailed(f"the batch of step {batch.step} could not be kept in {place}: {error}") from error
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def read_batch(file: Path) -> SkippedBatch:
    """Raises BatchUnreadable."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return SkippedBatch(
            step=found["step"],
            sequences=tuple(_sequence(row) for row in found["sequences"]),
            task_ids=tuple(found["task_ids"]),
            skipped=_skipped(found.get("skipped")),
            reference=found.get("reference"),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BatchUnreadable(f"{file} is no batch that a run has kept ({error})") from error


def _sequence(row: dict[str, Any]) -> TrainingSequence:
    return TrainingSequence(**{name: _fixed(value) for name, value in row.items()})


def _skipped(row: dict[str, Any] | None) -> SkippedUpdates | None:
    if row is None:
        return None
    groups = _fixed(row["groups"])
    return SkippedUpdates(**{name: _fixed(value) for name, value in row.items()} | {"groups": frozenset(groups)})


def _fixed(value: Any) -> Any:
    """JSON's lists as tuples."""
    return tuple(_fixed(entry) for entry in value) if isinstance(value, list) else value
