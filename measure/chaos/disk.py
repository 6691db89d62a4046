"""A disk that fills while checkpoints are written: a small file system of its own under the run's checkpoints/."""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from measure.chaos.scene import Noticed, NotPossible, Opening, Scene
from measure.chaos.watched import TrainerRun

ROOM = 2**30
"""Bytes of the file system while it is in order; memory is used for what is written only."""
LEFT = 256 * 2**10
"""Bytes that a full disk still has."""
MESSAGE = "could not be written"
FAILED = 1
TRIES = 20
PAUSE_S = 0.05


def full_disk(*, stops: bool) -> Opening:
    """`stops`: the run ends with one sentence and is resumed once there is room. Otherwise it goes on without."""

    @contextmanager
    def opened(folder: Path) -> Iterator[Scene]:
        place = folder / "checkpoints"
        with _mounted(place):

            def inject(run: TrainerRun) -> Noticed:
                since = run.log_size()
                _fill(place)
                return lambda: run.said(MESSAGE, since=since)

            yield Scene(
                inject=inject,
                settings=(f"checkpoint.on_failure={'stop' if stops else 'continue'}",),
                exit_code=FAILED if stops else None,
                heal=lambda: _remount(place, ROOM),
                check=lambda run: _untidy(place),
            )

    def opening(folder: Path) -> AbstractContextManager[Scene]:
        return opened(folder)

    return opening


def _fill(place: Path) -> None:
    """Leaves room for what is there and little more. Raises CalledProcessError."""
    for tries_left in reversed(range(TRIES)):
        try:
            return _remount(place, _used(place) + LEFT)
        except subprocess.CalledProcessError:
            # A checkpoint that is being written has grown meanwhile.
            if not tries_left:
                raise
            time.sleep(PAUSE_S)


def _untidy(place: Path) -> str | None:
    hidden = [entry.name for entry in place.iterdir() if entry.name.startswith(".")]
    return f"a half-written checkpoint is left: {hidden[0]}" if hidden else None


@contextmanager
def _mounted(place: Path) -> Iterator[None]:
    if shutil.which("mount") is None or os.geteuid() != 0:
        raise NotPossible("no permission to mount")
    place.mkdir(parents=True, exist_ok=True)
    try:
        _mount("-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(place))
    except subprocess.CalledProcessError as error:
        raise NotPossible("no permission to mount") from error
    try:
        yield
    finally:
        # The checkpoints go with it; a run that was killed may still hold a file open.
        with contextlib.suppress(subprocess.CalledProcessError):
            subprocess.run(["umount", "--lazy", str(place)], check=True, capture_output=True, timeout=30)


def _remount(place: Path, size: int) -> None:
    _mount("-o", f"remount,size={size}", str(place))


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True, timeout=30)


def _used(place: Path) -> int:
    status = os.statvfs(place)
    return (status.f_blocks - status.f_bfree) * status.f_frsize
