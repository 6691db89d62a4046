"""The one base class of errors that a user can act on."""


class QuorumError(Exception):
    """Carries one clear sentence for the user; entrypoints print it without a traceback and exit with code 1."""


class ConfigError(QuorumError):
    """A setting is unknown, missing, impossible or contradicts another; entrypoints exit with code 2."""
