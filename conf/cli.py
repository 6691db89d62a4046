"""What every entrypoint does with its command line: --help, --cfg job, overrides, clear errors."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TypeVar

from pydantic import BaseModel

from conf.errors import ConfigError, QuorumError, Terminated
from conf.load import experiments, groups, load, needed, to_yaml
from conf.paths import absolute
from conf.terminal import tell

FIRST = "quorum train experiment=quickstart"

Config = TypeVar("Config", bound=BaseModel)


def run_entrypoint(
    schema: type[Config], primary: str, job: Callable[[Config], int], about: str, arguments: Sequence[str]
) -> int:
    """Validates the configuration and runs `job` on it; returns the exit code. `job` sees absolute paths: this is where
    relative ones are taken from the working directory.

    0: done. 1: the job ended with an error the user can act on. 2: the configuration is wrong, or nothing was chosen,
    which starts nothing. 130: interrupted (Ctrl-C). 143: asked to leave (SIGTERM).
    """
    overrides = list(arguments)
    if "--help" in overrides or "-h" in overrides:
        sys.stdout.write(_help(about))
        return 0
    try:
        here = _here()
        if not overrides:
            sys.stderr.write(what_to_choose(primary, about))
            return 2
        show = _take_cfg(overrides)
        config = load(schema, primary, overrides)
        if show:
            sys.stdout.write(to_yaml(config))
            return 0
        with _terminable():
            return job(absolute(config, here))
    except QuorumError as error:
        return tell(error)
    except Terminated as error:
        sys.stderr.write("stopped by SIGTERM\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130


def _here() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError as error:
        raise ConfigError("the working directory has been removed") from error


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM raises Terminated while the block runs, unless the job has a handler of its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _leave(number: int, frame: FrameType | None) -> None:
    raise Terminated


def _take_cfg(overrides: list[str]) -> bool:
    for position, argument in enumerate(overrides):
        if argument in ("--cfg", "-c"):
            del overrides[position : position + 2]
            return True
    return False


def what_to_choose(primary: str, about: str) -> str:
    """What a command without arguments says."""
    lines = [about.strip().partition("\n\n")[0], "", "Nothing was chosen, so nothing was started."]
    if primary == "train":
        width = max(map(len, experiments()))
        lines.append("Experiments:")
        lines.extend(f"  {name:<{width}}  {said}" for name, said in experiments().items())
        lines.append(f"The first to try: {FIRST}")
    settings = " ".join(f"{name}=VALUE" for name in needed(primary))
    more = "--help lists the groups of settings; --cfg job prints the whole configuration."
    lines.append(f"It needs {settings}; --help says more." if settings else more)
    return "\n".join(lines) + "\n"


def _help(about: str) -> str:
    lines = [
        about.strip(),
        "",
        "Settings are Hydra overrides, name=value; --cfg job prints the whole configuration.",
        "",
    ]
    lines.append("Groups (choose with group=option):")
    lines.extend(f"  {group:<12} {' '.join(options)}" for group, options in groups().items())
    return "\n".join(lines) + "\n"
