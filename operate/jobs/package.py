"""What travels to the cluster: the source of this checkout, nothing that a run made.

Guarantees: no runs, caches, environments, data or weights; refused above MAX_BYTES, so that a forgotten file is noticed
here and not by the cluster. The same source gives the same package, which Ray then uploads once.
"""

import os
import shutil
from pathlib import Path

from conf.errors import QuorumError

PACKAGES = (
    "conf",
    "rewards",
    "rollout",
    "selection",
    "records",
    "curation",
    "trainer",
    "benchmarks",
    "operate",
    "measure",
)
SUFFIXES = (".py", ".c", ".h", ".yaml", ".j2", ".css", ".js")
MAX_BYTES = 20 * 2**20


class PackageTooLarge(QuorumError):
    """The source is larger than source should be."""


def source_files(root: Path) -> list[Path]:
    """The files to send, relative to `root`, in order."""
    found = []
    for package in PACKAGES:
        for folder, folders, names in os.walk(root / package):
            folders[:] = sorted(name for name in folders if name != "__pycache__" and not name.startswith("."))
            found += [Path(folder, name).relative_to(root) for name in sorted(names) if name.endswith(SUFFIXES)]
    return found


def stage(root: Path, folder: Path) -> int:
    """Copies the source into the empty `folder`; returns its bytes. Raises PackageTooLarge."""
    files = source_files(root)
    sizes = {file: (root / file).stat().st_size for file in files}
    total = sum(sizes.values())
    if total > MAX_BYTES:
        largest = max(sizes, key=lambda file: sizes[file])
        raise PackageTooLarge(
            f"the source to send has {total / 2**20:.0f} MiB, the limit is {MAX_BYTES / 2**20:.0f}: "
            f"the largest file is {largest} with {sizes[largest] / 2**20:.0f} MiB"
        )
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / file, folder / file)
    return total
