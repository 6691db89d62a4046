"""The one base class of errors that a user can act on, and what they quote of a library's."""

from typing import ClassVar


class QuorumError(Exception):
    """Carries one clear sentence for the user; entrypoints print it without a traceback and exit with its code."""

    exit_code: ClassVar[int] = 1


class ConfigError(QuorumError):
    """A setting is unknown, missing, impossible or contradicts another."""

    exit_code: ClassVar[int] = 2


def first_line(error: Exception, *, otherwise: str) -> str:
    """The first line of what a library's error says; `otherwise` where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip() if lines else otherwise
