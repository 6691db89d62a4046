"""The one base class of errors that a user can act on."""

from typing import ClassVar


class QuorumError(Exception):
    """Carries one clear sentence for the user; entrypoints print it without a traceback and exit with its code."""

    exit_code: ClassVar[int] = 1


class ConfigError(QuorumError):
    """A setting is unknown, missing, impossible or contradicts another."""

    exit_code: ClassVar[int] = 2
