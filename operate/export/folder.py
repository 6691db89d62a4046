"""Writes the exported folder: the policy's files and the card, whole or not at all."""

import os
import shutil
from pathlib import Path

from conf.errors import QuorumError
from operate.export.card import card
from operate.trained_run import Trained
from records.index.index import RunIndex, RunRow
from records.index.register import index_path


class ExportFailed(QuorumError):
    """The folder exists, or cannot be written."""


def export(trained: Trained, folder: Path) -> Path:
    """Copies the policy and writes README.md. Raises ExportFailed."""
    if folder.exists():
        raise ExportFailed(f"{folder} exists: choose another folder")
    hidden = folder.with_name(f".{folder.name}.writing")
    row = _row(trained)
    code = row.code if row else "unknown"
    data = (
        {name: f"{split['tasks']} tasks, digest {split['sha256']}" for name, split in row.data.items()} if row else {}
    )
    try:
        shutil.rmtree(hidden, ignore_errors=True)
        shutil.copytree(trained.policy, hidden)
        for file in hidden.rglob("*"):
            # Weights are written for their owner alone; what is exported is to be read.
            file.chmod(0o755 if file.is_dir() else 0o644)
        (hidden / "README.md").write_text(card(trained, code=code, data=data), encoding="utf-8")
        os.rename(hidden, folder)
    except OSError as error:
        shutil.rmtree(hidden, ignore_errors=True)
        raise ExportFailed(f"{folder} could not be written: {error}") from error
    return folder


def _row(trained: Trained) -> RunRow | None:
    """The run's row of the index beside it; None for a run that is not listed."""
    run = trained.config.run
    index = Path(run.index) if run.index else index_path(str(trained.run.parent), None)
    folder = str(trained.run.resolve())
    return next((row for row in RunIndex(index).rows() if row.folder == folder), None)
