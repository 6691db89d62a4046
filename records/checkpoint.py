"""Checkpoints that exist whole or not at all.

A checkpoint is written into a hidden folder, its MANIFEST.json last, and appears by rename, when all of its files and
folders are on the disk: a power cut leaves it whole, or leaves the one before. Loading accepts a folder only when every
file that its manifest lists is there with its size, and when what it says of itself can be read. A failed or
interrupted save leaves the previous checkpoints untouched. Does not notice bytes that change in a file of the same
size, and does not reach what another machine has written and not yet given to a shared disk.
"""

import json
import os
import re
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import FiniteFloat, NonNegativeInt, TypeAdapter, ValidationError

from conf.errors import QuorumError, first_line
from records.files import Json, sync_path, sync_tree, write_atomically

MANIFEST = "MANIFEST.json"
STATE = "state.json"
STREAM = "stream.json"
_NAME = re.compile(r"step-(\d+)")
T = TypeVar("T")


class CheckpointFailed(QuorumError):
    """A checkpoint could not be written; the previous one is intact."""


class CheckpointInvalid(QuorumError):
    """A checkpoint's files do not agree with its manifest, or do not hold what a checkpoint holds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunState:
    """What a run needs, beside weights, optimizer and memory store, to go on as if it had not stopped."""

    step: NonNegativeInt
    """Optimizer steps done."""
    version: NonNegativeInt
    """Policy version: weight updates done."""
    consumed: NonNegativeInt
    """Positions of the task stream that were trained on or dropped."""
    seed: NonNegativeInt
    wall_s: FiniteFloat
    """Wall time of the run so far; everything else of the summary follows from metrics.jsonl."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    step: NonNegativeInt = 0
    files: dict[str, NonNegativeInt] = field(default_factory=dict)
    """Size in bytes by path inside the checkpoint, of every file but this one."""


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

    def stream_state(self) -> Json | None:
        """What the task stream remembers; None where the checkpoint has none. Raises CheckpointInvalid."""
        return read_as(dict[str, Any], self.stream, self.folder) if self.stream.is_file() else None


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
            sync_tree(hidden)
            write_atomically(hidden / MANIFEST, json.dumps(asdict(Manifest(step=state.step, files=files)), indent=1))
            if final.is_symlink():
                final.unlink()
            shutil.rmtree(final, ignore_errors=True)
            os.rename(hidden, final)
            sync_path(self._folder)
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
        check_newest(self._folder)
        for folder in reversed(finished(self._folder)):
            self._given = folder
            return load(folder)
        return None

    def _prune(self) -> None:
        for folder in finished(self._folder)[: -self._keep]:
            if folder == self._given:
                continue
            remove(folder)


def _failed(final: Path, reason: str) -> CheckpointFailed:
    return CheckpointFailed(f"checkpoint {final} could not be written: {reason}; older ones are intact")


def finished(folder: Path) -> list[Path]:
    """The checkpoints in a run's folder of checkpoints that have been written to their end, oldest first. What they
    hold is not looked at."""
    return [one for one in _named(folder) if (one / MANIFEST).is_file()]


def check_newest(folder: Path) -> None:
    """Raises CheckpointInvalid where the newest checkpoint has lost its manifest. One that was removed in part has lost
    it too, and is older than a whole one."""
    for one in _named(folder)[-1:]:
        if one.is_dir() and not (one / MANIFEST).is_file() and any(one.iterdir()):
            raise CheckpointInvalid(f"{one / MANIFEST} is missing: {_instead(one)}")


def remove(folder: Path) -> None:
    """Removes a checkpoint, or a link to one that lies elsewhere. Without its manifest one that is removed in part is
    never taken for a whole one. Raises OSError."""
    if folder.is_symlink():
        folder.unlink()
        return
    (folder / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(folder)


def _named(folder: Path) -> list[Path]:
    named = [(int(match[1]), one) for one in folder.glob("step-*") if (match := _NAME.fullmatch(one.name))]
    return [one for _, one in sorted(named)]


def check_whole(folder: Path) -> Manifest:
    """Raises CheckpointInvalid unless every file that the manifest lists is there with its size."""
    manifest = read_as(Manifest, folder / MANIFEST, folder)
    for name, size in manifest.files.items():
        file = folder / name
        if not _has_size(file, size):
            raise CheckpointInvalid(
                f"{file} is missing or has changed since the checkpoint was written: {_instead(folder)}"
            )
    return manifest


def _has_size(file: Path, size: int) -> bool:
    try:
        return file.is_file() and file.stat().st_size == size
    except OSError:  # no file can have such a name, for instance
        return False


def load(folder: Path) -> Checkpoint:
    """Raises CheckpointInvalid."""
    if STATE not in check_whole(folder).files:
        raise damaged(folder / MANIFEST, folder, f"it does not list {STATE}")
    state = read_as(RunState, folder / STATE, folder)
    if state.step != step_of(folder):
        raise damaged(folder / STATE, folder, f"it is of step {state.step}")
    return Checkpoint(folder=folder, state=state)


def step_of(folder: Path) -> int:
    """The optimizer step in a checkpoint's name."""
    return int(folder.name.removeprefix("step-"))


def read_as(kind: type[T], file: Path, checkpoint: Path) -> T:
    """What a checkpoint's JSON file holds, which must be of this kind. Raises CheckpointInvalid."""
    try:
        return TypeAdapter(kind).validate_json(file.read_bytes(), strict=True)
    except (OSError, ValidationError) as error:
        raise damaged(file, checkpoint, first_line(error, otherwise="it cannot be read")) from error


def damaged(file: Path, checkpoint: Path, reason: str) -> CheckpointInvalid:
    """The sentence for a file that is there and does not hold what it should."""
    return CheckpointInvalid(f"{file} is damaged ({reason}): {_instead(checkpoint)}")


def _instead(folder: Path) -> str:
    return f"remove {folder} to resume from the one before"
