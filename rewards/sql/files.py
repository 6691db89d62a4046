"""Where the instances of a database lie: FOLDER/<db_id>/<db_id>.sqlite and other *.sqlite files beside it.

Regular files only, none whose name begins with a dot: those are other programs' notes (`._x.sqlite` is what macOS knows
of x.sqlite), and a pipe would keep its reader waiting.
"""

import os
from pathlib import Path


def instance_files(folder: Path, db_id: str) -> tuple[str, ...]:
    """All instances, the primary one first and the others by name; () when that one is missing."""
    # os.path, unlike pathlib, answers False for a name that no file can have: too long, or with a NUL.
    return expected_files(folder, db_id) if os.path.isfile(_primary(folder, db_id)) else ()


def expected_files(folder: Path, db_id: str) -> tuple[str, ...]:
    """The same, for callers that notice a missing primary one when they open it."""
    primary = _primary(folder, db_id)
    others = (name for name in _instance_names(primary.parent) if name != primary.name)
    return str(primary), *(str(primary.parent / name) for name in others)


def _instance_names(folder: Path) -> list[str]:
    """[] also for a folder that cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return sorted(
                entry.name
                for entry in entries
                if entry.name.endswith(".sqlite") and not entry.name.startswith(".") and entry.is_file()
            )
    except OSError:
        return []


def _primary(folder: Path, db_id: str) -> Path:
    return folder / db_id / f"{db_id}.sqlite"
