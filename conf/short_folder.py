"""A folder for sockets. The name of a Unix socket has at most 107 bytes, and a TMPDIR may leave too few of them."""

import atexit
import os
import shutil
import tempfile
from functools import cache

from conf.errors import QuorumError

SOCKET_BYTES = 107
PLACES = ("/tmp", "/var/tmp", "/dev/shm")


class NoShortFolder(QuorumError):
    """No folder with a short name can be written on this machine."""


def room_in(folder: str, below: str) -> bool:
    """Whether a socket named `below`, relative to the folder, may lie in it."""
    return len(os.fsencode(os.path.join(folder, below))) <= SOCKET_BYTES


def new_short_folder() -> str:
    """A new folder with a short name, of this user alone. Raises NoShortFolder."""
    for place in PLACES:
        try:
            return tempfile.mkdtemp(prefix="quorum-", dir=place)
        except OSError:
            continue
    raise NoShortFolder(f"no folder can be made in any of {', '.join(PLACES)}, and sockets need one with a short name")


@cache
def short_folder() -> str:
    """One such folder for this process, removed when it ends. Raises NoShortFolder."""
    folder = new_short_folder()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
