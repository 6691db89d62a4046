"""Starts a Ray of this process's own, which ends with it, or connects to a running cluster. Imports Ray when called."""

import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import psutil

from conf.errors import QuorumError, Terminated

OBJECT_STORE_BYTES = 512 * 2**20
"""Groups and training sequences are small; weights never pass through the object store."""
START_TRIES = 3
STDERR = 2
NICENESS = 5
"""Of workers, where the user's environment does not say otherwise. Ray's own default, 15, leaves them a thirtieth of a
core that another program uses, and no room for what may wait for them, like a learner beside engines."""


class RayUnavailable(QuorumError):
    """Ray could not be started or reached."""


class RayLate(RayUnavailable):
    """Ray's own processes did not come up in time."""


def start_private_ray(cpus: int) -> None:
    """Ray gives its own processes 30 s to come up, which a loaded machine may exceed: more than one try.

    Raises RayUnavailable.
    """
    os.environ.setdefault("RAY_worker_niceness", str(NICENESS))
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
    _init(f"at {address}", address=address)


def _init(where: str, **settings: object) -> None:
    import ray

    handler = signal.getsignal(signal.SIGTERM)
    try:
        with _errors_held():
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
