"""The one base class of errors that a user can act on, and what they quote of a library's."""

import re
import signal
from collections.abc import Iterable
from typing import ClassVar

LONGEST = 600
"""Characters of a library's words that are quoted."""
_COUNT = re.compile(r"\d+ validation errors? for ")
_PAGE = "For further information visit https://errors.pydantic.dev"


class QuorumError(Exception):
    """Carries one clear sentence for the user; entrypoints print it without a traceback and exit with its code."""

    exit_code: ClassVar[int] = 1


class ConfigError(QuorumError):
    """A setting is unknown, missing, impossible or contradicts another."""

    exit_code: ClassVar[int] = 2


class Terminated(KeyboardInterrupt):
    """SIGTERM came where there is nothing to save. Like Ctrl-C it passes by whatever handles errors."""

    exit_code: ClassVar[int] = 128 + signal.SIGTERM


def first_line(error: Exception, *, otherwise: str) -> str:
    """What a library's error says, in one line: its first line, and those after it that the first announces with a
    colon; of a pydantic error, which begins with a bare count, every problem. `otherwise` where it says nothing.
    """
    problems = _problems(error)
    if problems:
        return "; ".join(map(_cut, problems))
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return otherwise
    # Some libraries pass a pydantic error on as text.
    return one_line(lines if lines[0].endswith(":") or _COUNT.match(lines[0]) else lines[:1])


def one_line(lines: Iterable[str]) -> str:
    """Lines as one, without the addresses of pydantic's pages, and not too long."""
    return _cut(" ".join(" ".join(line for line in lines if not line.strip().startswith(_PAGE)).split()))


def _cut(told: str) -> str:
    return told if len(told) <= LONGEST else told[:LONGEST] + "..."


def _problems(error: Exception) -> list[str]:
    """What is wrong and where, for each problem that a pydantic error holds; empty for other errors."""
    from pydantic import ValidationError  # it takes longer to import than `quorum --help` should

    if not isinstance(error, ValidationError):
        return []
    told = []
    for problem in error.errors(include_url=False, include_input=False, include_context=False):
        place = ".".join(map(str, problem["loc"]))
        message = " ".join(problem["msg"].removeprefix("Value error, ").split())
        told.append(f"{place}: {message}" if place else message)
    return told
