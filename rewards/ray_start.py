"""Starts a Ray of this process's own, which ends with it, or connects to a running cluster. Imports Ray when called.

Guarantees: workers import this process's code, whatever lies in the working directory; a TMPDIR too long for sockets
and a home that cannot be written stop no private Ray. On a cluster workers have their own copy of the code: actors
compare it with the driver's (rewards/same_code.py).
"""

import os
import secrets
import shutil
import signal
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, chdir, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from conf.child import ROOT
from conf.errors import QuorumError, Terminated
from conf.short_folder import room_in, short_folder
from rewards.same_code import variables

OBJECT_STORE_BYTES = 512 * 2**20
"""Groups and training sequences are small; weights never pass through the object store."""
START_TRIES = 3
STDERR = 2
NICENESS = 5
"""Of workers, where the user's environment does not say otherwise. Ray's own default, 15, leaves them a thirtieth of a
core that another program uses, and no room for what may wait for them, like a learner beside engines."""
_LONGEST_SOCKET = "ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
"""Of Ray's, below its folder."""


class RayUnavailable(QuorumError):
    """Ray could not be started or reached."""


class RayLate(RayUnavailable):
    """Ray's own processes did not come up in time."""


def start_private_ray(cpus: int) -> None:
    """Ray gives its own processes 30 s to come up, which a loaded machine may exceed: more than one try.

    Raises RayUnavailable.
    """
    os.environ.setdefault("RAY_worker_niceness", str(NICENESS))
    give_token()
    folder = ray_folder()
    for tries_left in reversed(range(START_TRIES)):
        before = set(psutil.Process().children(recursive=True))
        try:
            # "local" never joins another Ray that runs on this machine.
            _init(
                "on this machine",
                address="local",
                num_cpus=cpus,
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                **({} if folder is None else {"_temp_dir": folder}),
            )
            return
        except RayLate:
            if not tries_left:
                raise
            for process in set(psutil.Process().children(recursive=True)) - before:
                with suppress(psutil.NoSuchProcess):
                    process.kill()


def connect_ray(address: str) -> None:
    """Connects to a running cluster. Raises RayUnavailable."""
    _init(f"at {address}", address=address, runtime_env={"env_vars": variables()})


def ray_folder() -> str | None:
    """A short folder for the files of a Ray on this machine; None: its own choice will do. Raises NoShortFolder."""
    own = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    return None if room_in(own, _LONGEST_SOCKET) else short_folder()


def give_token() -> None:
    """Gives this process a token for its private Ray, which would else keep one in a home that cannot be written."""
    given = any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    if not given and os.environ.get("RAY_AUTH_MODE", "").lower() != "disabled" and not home_holds_token():
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def home_holds_token() -> bool:
    """Whether Ray's token lies in the user's home, or can be put there."""
    try:
        folder = Path.home() / ".ray"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: no HOME, and no such user
        return False
    return os.access(folder / "auth_token", os.R_OK) or os.access(folder, os.W_OK)


def _init(where: str, **settings: Any) -> None:
    import ray

    handler = signal.getsignal(signal.SIGTERM)
    try:
        # Ray puts the working directory first on its workers' path, where another project's packages may lie.
        with chdir(_import_folder()), _errors_held():
            ray.init(**settings, log_to_driver=False, logging_level="ERROR")
    except (RuntimeError, OSError, ValueError) as error:
        raise RayUnavailable(_sentence(where, error)) from error
    except Exception as error:
        # Ray has no class for processes that come up late: it raises a bare Exception. Any other kind is ours to see.
        if type(error) is not Exception:
            raise
        raise RayLate(_sentence(where, error)) from error
    finally:
        if callable(handler) and threading.current_thread() is threading.main_thread():
            # Ray has put its own in the place, which prints the C++ stack.
            signal.signal(signal.SIGTERM, handler)


def _import_folder() -> Path:
    """What workers may import from first: the checkout, or nothing where the code is installed, as Python's own
    modules come before it there."""
    installed = {Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")}
    return Path(sys.prefix) if ROOT in installed else ROOT


@contextmanager
def _errors_held() -> Iterator[None]:
    """Ray answers SIGTERM while it starts with its C++ stack on the standard error, and exits with the signal's number.

    What the block writes there comes out at its end, but for that. Raises Terminated in its place.
    """
    sys.stderr.flush()
    with ExitStack() as opened:
        real = os.dup(STDERR)
        opened.callback(os.close, real)
        held = opened.enter_context(tempfile.TemporaryFile())
        os.dup2(held.fileno(), STDERR)
        told = True
        try:
            yield
        except SystemExit as error:
            if error.code != signal.SIGTERM:
                raise
            told = False
            raise Terminated from error
        except Terminated:
            told = False
            raise
        finally:
            sys.stderr.flush()
            os.dup2(real, STDERR)
            held.seek(0)
            if told:
                with os.fdopen(os.dup(real), "wb") as output:
                    shutil.copyfileobj(held, output)


def _sentence(where: str, error: Exception) -> str:
    return f"Ray could not be used {where}: {' '.join(str(error).split())}"
