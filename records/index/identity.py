"""What a run was made from: the code's version, the data's digests, the checkpoint that it started from."""

import os
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from records.digests import split_digest
from rollout.tasks import TaskSet

CODE_VERSION = "QUORUM_CODE_VERSION"
"""Environment variable that `operate.jobs.command` sets: a packaged working directory has no git."""
JOB_ID = "QUORUM_JOB_ID"
GIT_S = 10.0


def code_version(root: Path) -> str:
    """The commit of the checkout at `root`, or the version of the installed package."""
    given = os.environ.get(CODE_VERSION)
    if given:
        return given
    if (root / ".git").exists():
        commit = _git(root, "rev-parse", "--short=12", "HEAD")
        if commit:
            return f"{commit}+changes" if _git(root, "status", "--porcelain", "--untracked-files=no") else commit
    try:
        return f"quorum-sql {metadata.version('quorum-sql')}"
    except metadata.PackageNotFoundError:
        return "unknown"


def _git(root: Path, *arguments: str) -> str | None:
    """What git prints; None where git or its repository is missing."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=GIT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def data_digests(tasks: TaskSet) -> dict[str, Any]:
    """By split: number of tasks, and a digest of them with the content of their databases."""
    splits = {"warmup": tasks.warmup, "train": tasks.train, "heldout": tasks.heldout}
    found = {name: split_digest(split) for name, split in splits.items() if split}
    return {name: {"tasks": digest.tasks, "sha256": digest.whole} for name, digest in found.items()}


def parent_checkpoint(model: Path) -> str | None:
    """The checkpoint folder that a policy folder belongs to; None for any other model."""
    folder = model.resolve()
    return str(folder.parent) if folder.name == "policy" and (folder.parent / "MANIFEST.json").is_file() else None
