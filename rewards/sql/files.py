"""Where the instances of a database lie: FOLDER/<db_id>/<db_id>.sqlite and other *.sqlite files beside it."""

from pathlib import Path


def instance_files(folder: Path, db_id: str) -> tuple[str, ...]:
    """All instances, the primary one first and the others by name; () when that one is missing."""
    files = expected_files(folder, db_id)
    return files if Path(files[0]).is_file() else ()


def expected_files(folder: Path, db_id: str) -> tuple[str, ...]:
    """The same, for callers that notice a missing primary one when they open it."""
    primary = folder / db_id / f"{db_id}.sqlite"
    others = sorted(file for file in primary.parent.glob("*.sqlite") if file != primary)
    return tuple(str(file) for file in (primary, *others))
