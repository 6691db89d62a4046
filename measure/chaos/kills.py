"""Faults of single processes: ended by SIGKILL, stopped by SIGSTOP, told to leave by SIGTERM."""

import contextlib
import re
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import psutil

from measure.chaos.scene import Allowed, Noticed, Opening, Scene
from measure.chaos.watched import TrainerRun, command_of

HANG_S = 20
"""Silence after which a rollout worker counts as hung in these runs."""
OUTAGE_S = 20.0
KILLED = -signal.SIGKILL
LEFT = 128 + signal.SIGTERM
TRAINING = "ray::LearnerActor.train"
GOES_BACK = "going on from"
"""What a run says when it goes back to its last checkpoint."""
BACK = re.compile(r"rollout worker \d+ is back after ([0-9.]+) s")

Find = Callable[[TrainerRun], list[psutil.Process]]
Do = Callable[[psutil.Process], None]


def of_actor(title: str) -> Find:
    return lambda run: run.actors(title)


def of_executors(run: TrainerRun) -> list[psutil.Process]:
    return run.executors()


def within(seconds: float) -> Allowed:
    return lambda run: seconds


def beyond_its_restart(seconds: float) -> Allowed:
    """Beside the time in which the run's rollout worker came back, by its own account."""
    return lambda run: seconds + max(map(float, BACK.findall(run.log.read_text(errors="replace"))), default=0.0)


def told(find: Find, do: Do, text: str, settings: Sequence[str] = (), allowed_s: Allowed | None = None) -> Opening:
    """Does it to all processes of a kind; noticed when the run says so."""

    def inject(run: TrainerRun) -> Noticed:
        since = run.log_size()
        do_to(_found(run, find), do)
        return lambda: run.said(text, since=since)

    return _always(Scene(inject=inject, settings=tuple(settings), allowed_s=allowed_s))


def replaced(find: Find, do: Do, settings: Sequence[str] = (), allowed_s: Allowed | None = None) -> Opening:
    """Does it to all processes of a kind; noticed when there are new ones."""

    def inject(run: TrainerRun) -> Noticed:
        victims = _found(run, find)
        do_to(victims, do)
        old = {victim.pid for victim in victims}
        return lambda: any(each.pid not in old for each in find(run))

    return _always(Scene(inject=inject, settings=tuple(settings), allowed_s=allowed_s))


def goes_back(finds: Sequence[Find], do: Do) -> Opening:
    """Does it to one process of each kind; noticed when the run says that it goes back to its checkpoint."""

    def inject(run: TrainerRun) -> Noticed:
        since = run.log_size()
        do_to([_found(run, find)[0] for find in finds], do)
        return lambda: run.said(GOES_BACK, since=since)

    return _always(Scene(inject=inject))


def outage(seconds: float) -> Opening:
    """The reward actors and their executors stand still for a while."""

    def inject(run: TrainerRun) -> None:
        victims = [*_found(run, of_actor("RewardActor")), *run.executors()]
        do_to(victims, psutil.Process.suspend)
        threading.Timer(seconds, do_to, [victims, psutil.Process.resume]).start()

    return _always(Scene(inject=inject))


def missed_update() -> Opening:
    """A rollout worker stands still from the middle of an optimizer step: it cannot take the step's weights."""

    def inject(run: TrainerRun) -> Noticed:
        since = run.log_size()
        workers = _found(run, of_actor("RolloutWorker"))
        learner = _found(run, of_actor("LearnerActor"))[0]
        run.until(lambda: command_of(learner).startswith(TRAINING), "the next optimizer step")
        do_to(workers, psutil.Process.suspend)
        return lambda: run.said("did not take the weights", since=since)

    return _always(Scene(inject=inject, settings=(f"rollout.group_timeout_s={HANG_S}",)))


def of_the_driver(do: Do, exit_code: int, allowed_s: Allowed) -> Opening:
    """The run's own process; it is started again with resume=auto."""

    def inject(run: TrainerRun) -> Noticed:
        run.remember()
        do(run.process)
        return lambda: run.exit_code is not None

    return _always(Scene(inject=inject, exit_code=exit_code, allowed_s=allowed_s))


def do_to(processes: Sequence[psutil.Process], do: Do) -> None:
    """To those that have not ended by themselves."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            do(process)


def _always(scene: Scene) -> Opening:
    @contextmanager
    def opened(folder: Path) -> Iterator[Scene]:
        yield scene

    def opening(folder: Path) -> AbstractContextManager[Scene]:
        return opened(folder)

    return opening


def _found(run: TrainerRun, find: Find) -> list[psutil.Process]:
    found: list[psutil.Process] = []

    def look() -> bool:
        found[:] = find(run)
        return bool(found)

    run.until(look, "the process to disturb")
    return found
