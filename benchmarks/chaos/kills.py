"""Faults of single processes: ended by SIGKILL, stopped by SIGSTOP, told to leave by SIGTERM."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import psutil

from benchmarks.chaos.scene import Noticed, Opening, Scene
from benchmarks.chaos.watched import TrainerRun, command_of

HANG_S = 20
"""Silence after which a rollout worker counts as hung in these runs."""
OUTAGE_S = 20.0
KILLED = -signal.SIGKILL
LEFT = 128 + signal.SIGTERM
TRAINING = "ray::LearnerActor.train"

Find = Callable[[TrainerRun], list[psutil.Process]]
Do = Callable[[psutil.Process], None]


def of_actor(title: str) -> Find:
    return lambda run: run.actors(title)


def of_executors(run: TrainerRun) -> list[psutil.Process]:
    return run.executors()


def replaced(find: Find, do: Do, settings: Sequence[str] = ()) -> Opening:
    """Does it to all processes of a kind; noticed when there are new ones."""

    def inject(run: TrainerRun) -> Noticed:
        victims = _found(run, find)
        for victim in victims:
            do(victim)
        return _successor(run, find, victims)

    return _always(Scene(inject=inject, settings=tuple(settings)))


def goes_back(find: Find, do: Do) -> Opening:
    """Does it to one process of a kind; noticed when the run says that it goes back to its checkpoint."""

    def inject(run: TrainerRun) -> Noticed:
        since = run.log_size()
        do(_found(run, find)[0])
        return lambda: run.said("going on from", since=since)

    return _always(Scene(inject=inject))


def outage(seconds: float) -> Opening:
    """The reward actors and their executors stand still for a while."""

    def inject(run: TrainerRun) -> None:
        victims = [*_found(run, of_actor("RewardActor")), *run.executors()]
        for victim in victims:
            victim.suspend()
        threading.Timer(seconds, _go_on, [victims]).start()

    return _always(Scene(inject=inject))


def missed_update() -> Opening:
    """A rollout worker stands still from the middle of an optimizer step: it cannot take the step's weights."""

    def inject(run: TrainerRun) -> Noticed:
        victims = _found(run, of_actor("RolloutWorker"))
        (learner,) = _found(run, of_actor("LearnerActor"))
        run.until(lambda: command_of(learner).startswith(TRAINING), "the next optimizer step")
        for victim in victims:
            victim.suspend()
        return _successor(run, of_actor("RolloutWorker"), victims)

    return _always(Scene(inject=inject, settings=(f"rollout.group_timeout_s={HANG_S}",)))


def of_the_driver(do: Do, exit_code: int) -> Opening:
    """The run's own process; it is started again with resume=auto."""

    def inject(run: TrainerRun) -> Noticed:
        run.remember()
        do(run.process)
        return lambda: run.exit_code is not None

    return _always(Scene(inject=inject, exit_code=exit_code))


def _always(scene: Scene) -> Opening:
    @contextmanager
    def opened(folder: Path) -> Iterator[Scene]:
        yield scene

    def opening(folder: Path) -> AbstractContextManager[Scene]:
        return opened(folder)

    return opening


def _found(run: TrainerRun, find: Find) -> list[psutil.Process]:
    run.until(lambda: bool(find(run)), "the process to disturb")
    return find(run)


def _successor(run: TrainerRun, find: Find, victims: Sequence[psutil.Process]) -> Noticed:
    old = {victim.pid for victim in victims}
    return lambda: any(each.pid not in old for each in find(run))


def _go_on(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.resume()
