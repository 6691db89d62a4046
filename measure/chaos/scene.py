"""What a fault is: what it needs around a run, what it does to it, and how the run should take it."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from conf.errors import QuorumError
from measure.chaos.watched import TrainerRun

Noticed = Callable[[], bool]
Allowed = Callable[[TrainerRun], float]
"""After the run has recovered: what it has written may tell."""


class NotPossible(QuorumError):
    """This machine does not let the fault be made."""


def nothing() -> None:
    """For a fault that leaves nothing to mend."""


def no_problem(run: TrainerRun) -> str | None:
    """For a fault after which only the counts are looked at."""
    return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """A fault, ready to be made."""

    inject: Callable[[TrainerRun], Noticed | None]
    """Makes it, as its last act. Returns what says that the run has noticed; None where it may just wait."""
    settings: tuple[str, ...] = ()
    """Of the trainer."""
    exit_code: int | None = None
    """What the run ends with because of the fault; None: it goes on by itself."""
    resumes: bool = True
    """Whether a run that has ended is started again with resume=auto."""
    heal: Callable[[], None] = nothing
    """Ends the outage, once it was noticed."""
    check: Callable[[TrainerRun], str | None] = no_problem
    """Anything else that is wrong after the run, in words."""
    at_step: int | None = None
    """Instead of the suite's; 0 for a fault that is there from the start."""
    steps: int | None = None
    """Steps that the run should do, instead of the suite's."""
    allowed_s: Allowed | None = None
    """Seconds that the fault may cost beyond a usual step (None: no claim is made)."""


Opening = Callable[[Path], AbstractContextManager[Scene]]
"""Prepares a fault for a run folder. Raises NotPossible."""
