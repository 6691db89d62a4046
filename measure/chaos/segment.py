"""A weight update that was applied by half: the learner's weight segment is damaged, then an engine must load from it.

The learner's segment is an anonymous file, reachable through /proc by the same user. Its header keeps the right
version, so the damage can be seen by comparing log-probabilities alone.
"""

import contextlib
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from measure.chaos.kills import GOES_BACK, do_to
from measure.chaos.scene import Noticed, NotPossible, Scene
from measure.chaos.watched import TrainerRun, TrialFailed

SEGMENT = "/memfd:quorum-weights"


@contextmanager
def half_applied(folder: Path) -> Iterator[Scene]:
    """The second half of the published weights becomes zeros; the worker that held them whole is killed."""

    def inject(run: TrainerRun) -> Noticed:
        since = run.log_size()
        learners = run.actors("LearnerActor")
        if not learners:
            raise TrialFailed(f"the run has no learner: see {run.log}")
        learner = learners[0].pid
        damage(learner)
        do_to(run.actors("RolloutWorker"), psutil.Process.kill)

        def noticed() -> bool:
            if run.said(GOES_BACK, since=since):
                return True
            # A step that was under way may publish whole weights before the workers' replacements read any.
            with suppress(NotPossible):
                damage(learner)
            return False

        return noticed

    yield Scene(inject=inject)


def damage(pid: int) -> int:
    """Overwrites the second half of a process's weight segment with zeros; the bytes overwritten.

    Raises NotPossible.
    """
    try:
        fd = _open(pid)
    except OSError as error:
        raise NotPossible(f"the learner's memory cannot be opened ({error.strerror})") from error
    try:
        size = os.fstat(fd).st_size
        with mmap.mmap(fd, size) as view:
            view[size // 2 :] = bytes(size - size // 2)
        return size - size // 2
    finally:
        os.close(fd)


def _open(pid: int) -> int:
    for link in Path(f"/proc/{pid}/fd").iterdir():
        # Descriptors come and go while they are listed.
        with contextlib.suppress(FileNotFoundError):
            if os.readlink(link).startswith(SEGMENT):
                return os.open(link, os.O_RDWR)
    raise NotPossible("the learner has no weight segment: rollout.weight_transfer=shared_memory is needed")
