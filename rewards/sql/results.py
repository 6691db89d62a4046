"""The executions of many queries by key, of which only so much is held in memory.

For whoever needs many results side by side (benchmarks, ballots); scoring compares each as it comes and keeps none.
"""

import pickle
import tempfile
from collections.abc import Hashable
from typing import IO, Generic, TypeVar

from rewards.carriers import Execution
from rewards.sql.cache import rows_bytes

HELD_BYTES = 512 * 2**20
"""Rows held in memory; results that come after that many lie in a file."""

Key = TypeVar("Key", bound=Hashable)


class Results(Generic[Key]):
    """Executions by key. The file has no name: it goes with this object, however the process ends.

    >>> results = Results[str]()
    >>> results.put("SELECT 1", Execution(status="ok", rows=((1,),)))
    >>> results["SELECT 1"].rows
    ((1,),)
    """

    def __init__(self, held_bytes: int = HELD_BYTES) -> None:
        self._limit = held_bytes
        self._held = 0
        self._executions: dict[Key, Execution] = {}
        self._places: dict[Key, int] = {}
        self._file: IO[bytes] | None = None

    def __contains__(self, key: Key) -> bool:
        return key in self._executions or key in self._places

    def __getitem__(self, key: Key) -> Execution:
        held = self._executions.get(key)
        if held is not None:
            return held
        place = self._places[key]
        assert self._file is not None
        self._file.seek(place)
        read: Execution = pickle.load(self._file)
        return read

    def put(self, key: Key, execution: Execution) -> None:
        """Keeps one more. Raises OSError where the file cannot be written."""
        size = rows_bytes(execution.rows)
        if self._held + size <= self._limit:
            self._held += size
            self._executions[key] = execution
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile()
        self._places[key] = self._file.seek(0, 2)
        pickle.dump(execution, self._file, protocol=pickle.HIGHEST_PROTOCOL)
