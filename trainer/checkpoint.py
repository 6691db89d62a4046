"""Checkpoints that exist whole or not at all.

A checkpoint is written into a hidden folder, its MANIFEST.json last, and appears by rename. Loading accepts a folder
only when every file that its manifest lists is there with its size. A failed or interrupted save leaves the previous
checkpoints untouched.
"""

import json
import os
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from conf.errors import QuorumError, first_line
from trainer.records import write_atomically

MANIFEST = "MANIFEST.json"
STATE = "state.json"
STREAM = "stream.json"


class CheckpointFailed(QuorumError):
    """A checkpoint could not be written; the previous one is intact."""


class CheckpointInvalid(QuorumError):
    """A checkpoint's files do not agree with its manifest."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunState:
    """What a run needs, beside weights, optimizer and memory store, to go on as if it had not stopped."""

    step: int
    """Optimizer steps done."""
    version: int
    """Policy version: weight updates done."""
    consumed: int
    """Positions of the task stream that were trained on or dropped."""
    seed: int
    wall_s: float
    """Wall time of the run so far; everything else of the summary follows from metrics.jsonl."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    folder: Path
    state: RunState

    @property
    def policy(self) -> Path:
        """The policy as a Hugging Face folder."""
        return self.folder / "policy"

    @property
    def stream(self) -> Path:
        """What the task stream remembers."""
        return self.folder / STREAM

    @property
    def memory(self) -> Path:
        """The reward server's store of verified traces."""
        return self.folder / "memory.sqlite"


class CheckpointStore:
    """The checkpoints of one run: `folder`/step-000N, the newest `keep` of them and the one that `latest` gave out."""

    def __init__(self, folder: Path, *, keep: int) -> None:
        self._folder = folder
        self._keep = keep
        self._given: Path | None = None

    async def save(self, state: RunState, write: Callable[[Path], Awaitable[None]]) -> Checkpoint:
        """Lets `write` fill a hidden folder, seals it and prunes old checkpoints.

        Raises CheckpointFailed, and the QuorumError of a part that was lost meanwhile; the hidden folder is then gone.
        """
        name = f"step-{state.step:06d}"
        hidden = self._folder / f".{name}.writing"
        final = self._folder / name
        try:
            shutil.rmtree(hidden, ignore_errors=True)
            hidden.mkdir(parents=True)
            await write(hidden)
            write_atomically(hidden / STATE, json.dumps(asdict(state), indent=1))
            files = {str(f.relative_to(hidden)): f.stat().st_size for f in sorted(hidden.rglob("*")) if f.is_file()}
            write_atomically(hidden / MANIFEST, json.dumps({"step": state.step, "files": files}, indent=1))
            shutil.rmtree(final, ignore_errors=True)
            os.rename(hidden, final)
        except CheckpointFailed as error:
            raise _failed(final, str(error)) from error
        except QuorumError:
            raise  # a lost learner or reward server ends the step, whatever it was at
        except Exception as error:
            # What fills the folder is written by many libraries, which have no class for what they refuse to write.
            raise _failed(final, first_line(error, otherwise=type(error).__name__)) from error
        finally:
            shutil.rmtree(hidden, ignore_errors=True)
        try:
            self._prune()
        except OSError as error:
            raise CheckpointFailed(
                f"checkpoint {final} is whole, but an older one cannot be removed: {error}"
            ) from error
        return Checkpoint(folder=final, state=state)

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint; None when there is none. Raises CheckpointInvalid when its files are damaged.

        It stays until another one is asked for: engines that were started from it are replaced from it too.
        """
        for folder in reversed(self._finished()):
            self._given = folder
            return _load(folder)
        return None

    def _finished(self) -> list[Path]:
        return sorted(f for f in self._folder.glob("step-*") if (f / MANIFEST).is_file())

    def _prune(self) -> None:
        for folder in self._finished()[: -self._keep]:
            if folder == self._given:
                continue
            # Without its manifest a half-removed checkpoint is never taken for a whole one.
            (folder / MANIFEST).unlink()
            shutil.rmtree(folder)


def _failed(final: Path, reason: str) -> CheckpointFailed:
    return CheckpointFailed(f"checkpoint {final} could not be written: {reason}; older ones are intact")


def _load(folder: Path) -> Checkpoint:
    files = json.loads((folder / MANIFEST).read_text())["files"]
    for name, size in files.items():
        file = folder / name
        if not file.is_file() or file.stat().st_size != size:
            raise CheckpointInvalid(
                f"{file} is missing or has changed since the checkpoint was written: "
                f"remove {folder} to resume from the one before"
            )
    return Checkpoint(folder=folder, state=RunState(**json.loads((folder / STATE).read_text())))
