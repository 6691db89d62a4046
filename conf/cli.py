"""What every entrypoint does with its command line: --help, --cfg job, overrides, clear errors."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from conf.errors import ConfigError, QuorumError
from conf.load import groups, load, to_yaml
from conf.paths import absolute
from conf.terminal import tell

Config = TypeVar("Config", bound=BaseModel)


def run_entrypoint(
    schema: type[Config], primary: str, job: Callable[[Config], int], about: str, arguments: Sequence[str]
) -> int:
    """Validates the configuration and runs `job` on it; returns the exit code. `job` sees absolute paths: this is where
    relative ones are taken from the working directory.

    0: done. 1: the job ended with an error the user can act on. 2: the configuration is wrong. 130: interrupted
    (Ctrl-C). 143: asked to leave (SIGTERM).
    """
    overrides = list(arguments)
    if "--help" in overrides or "-h" in overrides:
        sys.stdout.write(_help(about))
        return 0
    show = _take_cfg(overrides)
    try:
        here = _here()
        config = load(schema, primary, overrides)
        if show:
            sys.stdout.write(to_yaml(config))
            return 0
        return job(absolute(config, here))
    except QuorumError as error:
        return tell(error)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130


def _here() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError as error:
        raise ConfigError("the working directory has been removed") from error


def _take_cfg(overrides: list[str]) -> bool:
    for position, argument in enumerate(overrides):
        if argument in ("--cfg", "-c"):
            del overrides[position : position + 2]
            return True
    return False


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
