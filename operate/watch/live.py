"""A run folder followed as it grows; only new bytes are read."""

from collections import deque
from pathlib import Path

from records.files import Json, parse_row
from records.report.page import RunView, require_run, view_of
from records.report.samples import browser
from records.run_folder import METRICS, SAMPLES

NEWEST_GROUPS = 6
"""Sample groups kept in sight."""


class RowTail:
    """New complete rows of a file that another process appends to, and may replace when it resumes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file_id = 0
        self._offset = 0
        self._line = 0

    def read(self) -> tuple[bool, list[Json]]:
        """(whether the file was replaced or cut, so that earlier rows no longer count; the rows since the last call).

        Raises RecordsDamaged.
        """
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            return False, []
        with file:
            status = self._path.stat()
            again = status.st_ino != self._file_id or status.st_size < self._offset
            if again:
                self._file_id, self._offset, self._line = status.st_ino, 0, 0
            file.seek(self._offset)
            complete, newline, _ = file.read().rpartition(b"\n")
        rows = []
        for line in complete.split(b"\n") if newline else []:
            self._line += 1
            rows.append(parse_row(self._path, self._line, line))
        self._offset += len(complete) + len(newline)
        return again, rows


class LiveRun:
    """The rows so far and the newest samples of a run. Not thread-safe."""

    def __init__(self, path: Path) -> None:
        """Raises RunFolderError when the folder holds no run."""
        require_run(path)
        self.path = path
        self.rows: list[Json] = []
        self._metrics = RowTail(path / METRICS)
        self._samples = RowTail(path / SAMPLES)
        self._newest: deque[Json] = deque(maxlen=NEWEST_GROUPS)
        self._groups = 0

    def refresh(self) -> RunView:
        """Reads what is new and returns the run as it stands. Raises RecordsDamaged."""
        again, rows = self._metrics.read()
        self.rows = rows if again else [*self.rows, *rows]
        again, groups = self._samples.read()
        if again:
            self._newest.clear()
            self._groups = 0
        self._newest.extend(groups)
        self._groups += len(groups)
        return view_of(self.path, self.rows, browser(list(self._newest), self._groups), live=True)
