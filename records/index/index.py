"""The run index: one SQLite file, one row a run, written through sqlite-utils.

Guarantees: a run has one row however often it is resumed; writers of several machines take turns (each waits at most
LOCK_S). Rows hold settings, digests and results, no rows of data and no secrets. Does not know whether a run is alive:
a driver that was killed leaves its row at "running".
"""

import json
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from conf.errors import QuorumError
from records.files import write_atomically

if TYPE_CHECKING:
    from sqlite_utils import Database

LOCK_S = 30.0
"""Longest wait for another writer."""
RUN_ID = ".run_id"
Outcome = Literal["running", "finished", "stopped", "failed"]


class IndexUnusable(QuorumError):
    """The index file cannot be read or written, or holds no such run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRow:
    """The columns of table `runs`."""

    id: str
    name: str
    folder: str
    """Absolute path."""
    config: dict[str, Any]
    """The resolved configuration."""
    code: str
    """Commit of the checkout ("+changes" where files differ from it), or the installed version."""
    data: dict[str, Any]
    """Digest and size of each split; empty until the data is loaded."""
    parent: str | None
    """The checkpoint that the policy started from; None: a model that is no checkpoint of ours."""
    job: str | None
    """The Ray job that ran it last."""
    outcome: Outcome
    error: str | None
    steps: int
    scores: dict[str, Any]
    """Accuracies of the summary, 0..1; empty until the run has ended."""
    started: str
    """UTC, ISO 8601."""
    ended: str | None
    wall_s: float | None


_JSON = ("config", "data", "scores")


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def run_id(folder: Path) -> str:
    """The id kept in the run's folder, made on first use."""
    file = folder / RUN_ID
    if not file.is_file():
        write_atomically(file, secrets.token_hex(6))
    return file.read_text(encoding="utf-8").strip()


class RunIndex:
    """The index at a path; every method opens and closes it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def put(self, row: RunRow) -> None:
        """Inserts the row or replaces the one of the same id. Raises IndexUnusable."""
        values = {name: json.dumps(value) if name in _JSON else value for name, value in asdict(row).items()}
        with self._open(make=True) as database:
            database["runs"].upsert(values, pk="id", alter=True)  # type: ignore[union-attr]

    def rows(self) -> list[RunRow]:
        """All runs, oldest first; none when there is no index yet. Raises IndexUnusable."""
        if not self.path.is_file():
            return []
        with self._open() as database:
            if "runs" not in database.table_names():
                return []
            return [_row(values) for values in database["runs"].rows_where(order_by="started, id")]

    def find(self, wanted: str) -> RunRow:
        """The run of this id, folder or name; of a name, the newest. Raises IndexUnusable."""
        rows = self.rows()
        folder = str(Path(wanted).resolve())
        for match in (
            [row for row in rows if row.id == wanted],
            [row for row in rows if row.folder == folder],
            [row for row in rows if row.name == wanted],
        ):
            if match:
                return match[-1]
        raise IndexUnusable(f"{self.path} lists no run {wanted}: `quorum runs list` shows what it holds")

    def forget(self, ids: list[str]) -> None:
        """Removes rows. Raises IndexUnusable."""
        with self._open() as database:
            for one in ids:
                database["runs"].delete(one)  # type: ignore[union-attr]

    @contextmanager
    def _open(self, *, make: bool = False) -> Iterator["Database"]:
        # sqlite-utils loads pandas where that is installed, which takes seconds.
        from sqlite_utils import Database

        try:
            if make:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self.path, timeout=LOCK_S)
            try:
                yield Database(connection)
            finally:
                connection.close()
        except (sqlite3.Error, OSError) as error:
            raise IndexUnusable(f"the run index {self.path} cannot be used: {error}") from error


def _row(values: dict[str, Any]) -> RunRow:
    known = {field.name: values[field.name] for field in fields(RunRow)}
    # sqlite-utils makes a column of text where the first row holds nothing.
    known["wall_s"] = None if known["wall_s"] is None else float(known["wall_s"])
    return RunRow(**known | {name: json.loads(known[name]) for name in _JSON})
