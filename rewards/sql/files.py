"""Where the instances of a database lie: FOLDER/<db_id>/<db_id>.sqlite and other *.sqlite files beside it."""

import os
from pathlib import Path


def instance_files(folder: Path, db_id: str) -> tuple[str, ...]:
    """All instances, the primary one first and the others by name; () when that one is missing."""
    # os.path, unlike pathlib, answers False for a name that no file can have: too long, or with a NUL.
    return expected_files(folder, db_id) if os.path.isfile(_primary(folder, db_id)) else ()


def expected_files(folder: Path, db_id: str) -> tuple[str, ...]:
    """The same, for callers that notice a missing primary one when they open it."""
    primary = _primary(folder, db_id)
    others = sorted(file for file in primary.parent.glob("*.sqlite") if file != primary)
    return tuple(str(file) for file in (primary, *others))


def _primary(folder: Path, db_id: str) -> Path:
    return folder / db_id / f"{db_id}.sqlite"
