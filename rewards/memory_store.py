"""The store of reasoning traces: in memory for searching, in one SQLite file for keeping.

Guarantees: a saved store loads exactly (the vectors bit for bit, the traces in their order), so a resumed run gives the
same scores; saving replaces the file at once or not at all; traces enter in an order of their own, whatever order they
came in. Does not share a file between processes.
"""

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from conf.errors import QuorumError
from rewards.embedders.base import Embedder, Vectors
from rewards.neighbours import EXACT_LIMIT, ApproximateIndex, ExactIndex, NeighbourIndex

FORMAT = 1


class MemoryStoreInvalid(QuorumError):
    """The file is missing, is no memory store, or was written with another embedder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifiedTrace:
    """Reasoning that passed the quality gate, with what execution said of its answer."""

    task_id: str
    db_id: str
    reasoning: str
    correct: bool = True
    """False only with reward.memory.keep_failed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TraceQuery:
    """Whose neighbours are looked for."""

    task_id: str
    db_id: str
    vectors: Vectors
    """Array [reasonings, dimensions]."""
    same_database: bool
    """False: traces of this database are left out. The question's own traces always are."""
    correct: bool = True
    """Which traces are looked at: those of right answers or of wrong ones."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Neighbourhood:
    """The traces nearest to one vector."""

    centroid: NDArray[np.float64]
    """Array [dimensions]: their mean."""
    reasonings: tuple[str, ...]
    """Nearest first."""


class TraceStore:
    """Traces and their vectors, and an index over each of the right and the wrong ones."""

    def __init__(self, embedder: Embedder, *, duplicate_cosine: float) -> None:
        self._embedder = embedder
        self._duplicate_cosine = duplicate_cosine
        self._shelves = {correct: _Shelf(embedder.dimensions) for correct in (True, False)}

    def __len__(self) -> int:
        return len(self._shelves[True].traces)

    def __contains__(self, trace: VerifiedTrace) -> bool:
        return trace in self._shelves[trace.correct]

    def add(self, traces: Sequence[VerifiedTrace]) -> int:
        """Adds the traces that are no near-duplicates of one that is there; how many were added.

        Raises IndexUnavailable.
        """
        added = 0
        for correct, shelf in self._shelves.items():
            chosen = sorted(
                {t for t in traces if t.correct is correct}, key=lambda t: (t.task_id, t.reasoning, t.db_id)
            )
            if chosen:
                added += shelf.add(chosen, self._embedder.embed([t.reasoning for t in chosen]), self._duplicate_cosine)
        return added

    def nearest(self, query: TraceQuery, k: int) -> list[Neighbourhood | None]:
        """For each vector its k nearest traces; None where there is no trace to look at."""
        shelf = self._shelves[query.correct]
        allowed = shelf.allowed(query)
        if not allowed.any():
            return [None] * len(query.vectors)
        found = shelf.index.search(query.vectors, k, allowed)
        return [shelf.neighbourhood(numbers) if len(numbers) else None for numbers in found]

    def embed(self, texts: Sequence[str]) -> Vectors:
        return self._embedder.embed(texts)

    def save(self, path: str | Path) -> None:
        """Writes the store; the file appears by rename."""
        from sqlite_utils import Database  # it imports pandas, seconds that a command which never saves does without

        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
        partial.unlink(missing_ok=True)
        database = Database(partial)
        try:
            meta = {"format": FORMAT, "embedder": self._embedder.name, "dimensions": self._embedder.dimensions}
            database.table("meta").insert(meta)
            columns = {"task_id": str, "db_id": str, "reasoning": str, "correct": int, "vector": bytes}
            database.table("traces").create({"id": int, **columns}, pk="id")
            database.table("traces").insert_all(row for shelf in self._shelves.values() for row in shelf.rows())
        finally:
            database.close()
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, target)

    def load(self, path: str | Path) -> None:
        """Replaces the contents by a file's. Raises MemoryStoreInvalid, and then leaves the store as it was."""
        file = Path(path)
        connection = _opened(file)
        try:
            self._check(file, connection)
            shelves = {correct: _Shelf(self._embedder.dimensions) for correct in (True, False)}
            query = "SELECT task_id, db_id, reasoning, correct, vector FROM traces ORDER BY id"
            rows = connection.execute(query).fetchall()
        except sqlite3.Error as error:
            raise MemoryStoreInvalid(f"{file} is no memory store: {error}") from error
        finally:
            connection.close()
        for correct, shelf in shelves.items():
            own = [row for row in rows if bool(row[3]) is correct]
            traces = [VerifiedTrace(task_id=r[0], db_id=r[1], reasoning=r[2], correct=correct) for r in own]
            vectors = np.frombuffer(b"".join(r[4] for r in own), dtype="<f4").reshape(-1, self._embedder.dimensions)
            shelf.append(traces, vectors.astype(np.float32))
        self._shelves = shelves

    def _check(self, file: Path, connection: sqlite3.Connection) -> None:
        found = connection.execute("SELECT format, embedder, dimensions FROM meta").fetchone()
        expected = (FORMAT, self._embedder.name, self._embedder.dimensions)
        if found != expected:
            raise MemoryStoreInvalid(f"{file} was written for {found}, this run's embedder needs {expected}")


def check_store(path: str | Path) -> None:
    """Raises MemoryStoreInvalid unless the file is a memory store; for which embedder is not asked."""
    file = Path(path)
    try:
        with closing(_opened(file)) as connection:
            found = connection.execute("SELECT format FROM meta").fetchone()
    except sqlite3.Error as error:
        raise MemoryStoreInvalid(f"{file} is no memory store: {error}") from error
    if found != (FORMAT,):
        raise MemoryStoreInvalid(f"{file} is no memory store of format {FORMAT}")


def _opened(file: Path) -> sqlite3.Connection:
    if not file.is_file():
        raise MemoryStoreInvalid(f"there is no memory store at {file}")
    return sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)


class _Shelf:
    """Traces of one kind in the order of their numbers."""

    def __init__(self, dimensions: int) -> None:
        self.traces: list[VerifiedTrace] = []
        self.index: NeighbourIndex = ExactIndex(dimensions)
        self._dimensions = dimensions
        self._tasks: dict[str, list[int]] = {}
        self._databases: dict[str, list[int]] = {}

    def __contains__(self, trace: VerifiedTrace) -> bool:
        return any(self.traces[number] == trace for number in self._tasks.get(trace.task_id, ()))

    def add(self, traces: Sequence[VerifiedTrace], vectors: Vectors, duplicate_cosine: float) -> int:
        """Adds those whose nearest neighbour, among the traces here and the ones just added, is far enough."""
        nearest = self.index.nearest_cosine(vectors)
        kept: list[int] = []
        new = np.zeros_like(vectors)
        for number, vector in enumerate(vectors):
            among_new = float((new[: len(kept)] @ vector).max(initial=0.0))
            if max(float(nearest[number]), among_new) < duplicate_cosine:
                new[len(kept)] = vector
                kept.append(number)
        self.append([traces[number] for number in kept], vectors[kept])
        return len(kept)

    def append(self, traces: Sequence[VerifiedTrace], vectors: Vectors) -> None:
        if len(self.traces) + len(traces) > EXACT_LIMIT and isinstance(self.index, ExactIndex):
            approximate = ApproximateIndex(self._dimensions)
            approximate.add(self.index.vectors(np.arange(len(self.index))))
            self.index = approximate
        self.index.add(vectors)
        for number, trace in enumerate(traces, len(self.traces)):
            self._tasks.setdefault(trace.task_id, []).append(number)
            self._databases.setdefault(trace.db_id, []).append(number)
        self.traces += traces

    def allowed(self, query: TraceQuery) -> NDArray[np.bool_]:
        """Which traces the query may look at."""
        mask = np.ones(len(self.traces), dtype=np.bool_)
        mask[self._tasks.get(query.task_id, [])] = False
        if not query.same_database:
            mask[self._databases.get(query.db_id, [])] = False
        return mask

    def neighbourhood(self, numbers: NDArray[np.int64]) -> Neighbourhood:
        return Neighbourhood(
            centroid=self.index.vectors(numbers).mean(axis=0, dtype=np.float64),
            reasonings=tuple(self.traces[number].reasoning for number in numbers),
        )

    def rows(self) -> Iterator[dict[str, object]]:
        """What is saved of each trace."""
        for number, trace in enumerate(self.traces):
            yield {
                "task_id": trace.task_id,
                "db_id": trace.db_id,
                "reasoning": trace.reasoning,
                "correct": int(trace.correct),
                "vector": self.index.vectors(np.array([number]))[0].astype("<f4").tobytes(),
            }
