"""What Ray's exceptions say, in one line, and which of them no second try can mend. Imports Ray when called."""

import re
from typing import TYPE_CHECKING

from conf.errors import one_line

if TYPE_CHECKING:
    from ray.exceptions import RayError

_FRAME = re.compile(r'\s+File ".*", line \d+')


def cannot_start(error: "RayError") -> bool:
    """Whether an actor cannot start here at all: its constructor raised, or its environment cannot be made."""
    from ray.exceptions import ActorUnschedulableError, RayActorError, RuntimeEnvSetupError

    if isinstance(error, RayActorError):
        return error.actor_init_failed
    return isinstance(error, RuntimeEnvSetupError | ActorUnschedulableError)


def reason(error: "RayError") -> str:
    """What the failed code raised, where a traceback ends in it; otherwise Ray's words without names and numbers of its
    own."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    frames = [number for number, line in enumerate(lines) if _FRAME.match(line)]
    if frames:
        rest = lines[frames[-1] + 1 :]
        # Below a frame stand its source and marks, indented; the exception itself begins at the margin.
        while rest and rest[0][:1].isspace():
            rest.pop(0)
        lines = rest or lines
    else:
        lines = [line for line in lines if not line.startswith("\t")] or lines
    return one_line(lines) or type(error).__name__
