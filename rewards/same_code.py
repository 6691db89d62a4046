"""Whether an actor on another machine runs the driver's code: a checkout of another commit there would train, score and
sample by other rules, and nothing would look wrong.

The driver's digest travels in the actors' environment. Not looked at on a private Ray: its workers import the driver's
own files, which somebody may be editing when one is replaced.
"""

import hashlib
import os
import socket
from functools import cache
from pathlib import Path

from conf.child import ROOT
from conf.errors import QuorumError

VARIABLE = "QUORUM_CODE_DIGEST"
PACKAGES = ("conf", "rewards", "rollout", "selection", "records", "trainer")
"""What actors import, and what that imports."""


class OtherCode(QuorumError):
    """An actor's machine has another version of the code."""


def digest(root: Path = ROOT) -> str:
    """Of all Python files of the packages, names and contents."""
    found = hashlib.sha256()
    for package in PACKAGES:
        for file in sorted((root / package).rglob("*.py")):
            content = file.read_bytes()
            found.update(f"{file.relative_to(root)}\0{len(content)}\0".encode() + content)
    return found.hexdigest()[:16]


@cache
def variables() -> dict[str, str]:
    """What the driver puts into the environment of its actors on a cluster."""
    return {VARIABLE: digest()}


def check_same_code() -> None:
    """For an actor, before it does anything. Raises OtherCode."""
    wanted = os.environ.get(VARIABLE)
    if wanted is not None and digest() != wanted:
        raise OtherCode(
            f"{socket.gethostname()} runs other code than the driver, from {ROOT}: bring both to one version, or send "
            "the driver's along with `quorum submit`"
        )
