"""Nearest neighbours among unit vectors behind one interface: exact up to EXACT_LIMIT vectors, approximate beyond.

The exact index gives a query the same neighbours whatever else is in its batch: queries are multiplied in blocks of one
shape, because a matrix library may round differently for another shape.
"""

from importlib import import_module
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from conf.errors import QuorumError
from rewards.embedders.base import Vectors

EXACT_LIMIT = 100_000
QUERY_BLOCK = 32
GROWTH = 1.5


class IndexUnavailable(QuorumError):
    """The store has outgrown the exact index, and the library for approximate search is not installed."""


class NeighbourIndex(Protocol):
    def __len__(self) -> int: ...

    def add(self, vectors: Vectors) -> None:
        """Appends rows; their numbers go on from the last."""

    def search(self, queries: Vectors, k: int, allowed: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
        """For each query the numbers of its k nearest allowed rows (fewer where fewer are allowed), nearest first."""

    def vectors(self, numbers: NDArray[np.int64]) -> Vectors:
        """The rows of these numbers, as they were added."""

    def nearest_cosine(self, queries: Vectors) -> NDArray[np.float32]:
        """Cosine of each query to its nearest row, 0 for an empty index."""


class ExactIndex:
    """One matrix product for each block of queries; ties go to the older row."""

    def __init__(self, dimensions: int) -> None:
        self._rows = np.zeros((0, dimensions), dtype=np.float32)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, vectors: Vectors) -> None:
        needed = self._count + len(vectors)
        if needed > len(self._rows):
            grown = np.zeros((max(needed, int(len(self._rows) * GROWTH)), self._rows.shape[1]), dtype=np.float32)
            grown[: self._count] = self._rows[: self._count]
            self._rows = grown
        self._rows[self._count : needed] = vectors
        self._count = needed

    def search(self, queries: Vectors, k: int, allowed: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
        forbidden = ~allowed
        most = min(k, int(allowed.sum()))
        found = []
        for cosines in self._cosines(self._rows[: self._count], queries):
            cosines[forbidden] = -np.inf
            found.append(_largest(cosines, most))
        return found

    def vectors(self, numbers: NDArray[np.int64]) -> Vectors:
        return self._rows[numbers]

    def nearest_cosine(self, queries: Vectors) -> NDArray[np.float32]:
        if not self._count:
            return np.zeros(len(queries), dtype=np.float32)
        cosines = self._cosines(self._rows[: self._count], queries)
        return np.array([row.max() for row in cosines], dtype=np.float32)

    @staticmethod
    def _cosines(rows: Vectors, queries: Vectors) -> list[NDArray[np.float32]]:
        found = []
        for start in range(0, len(queries), QUERY_BLOCK):
            block = np.zeros((QUERY_BLOCK, queries.shape[1]), dtype=np.float32)
            part = queries[start : start + QUERY_BLOCK]
            block[: len(part)] = part
            found += list((block @ rows.T)[: len(part)])
        return found


def _largest(values: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Numbers of the k largest values, largest first, earlier ones first among equals."""
    if k == 0:
        return np.zeros(0, dtype=np.int64)
    threshold = np.partition(values, len(values) - k)[len(values) - k]
    near = np.flatnonzero(values >= threshold)
    return near[np.argsort(-values[near], kind="stable")][:k].astype(np.int64)


class ApproximateIndex:
    """faiss's HNSW graph, built on one thread so that equal stores give equal graphs."""

    def __init__(self, dimensions: int) -> None:
        try:
            faiss = import_module("faiss")
        except ImportError as error:
            raise IndexUnavailable(
                f"the memory store holds more than {EXACT_LIMIT} traces and needs the package faiss-cpu for "
                "approximate search; install it, or lower reward.memory.duplicate_cosine"
            ) from error
        self._faiss = faiss
        faiss.omp_set_num_threads(1)
        self._index = faiss.IndexHNSWFlat(dimensions, 32, faiss.METRIC_INNER_PRODUCT)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def add(self, vectors: Vectors) -> None:
        for row in np.ascontiguousarray(
            vectors
        ):  # one by one: faiss orders a batch by level, and the graph would differ
            self._index.add(row[None])

    def search(self, queries: Vectors, k: int, allowed: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
        mask = np.packbits(allowed, bitorder="little")
        selector = self._faiss.IDSelectorBitmap(mask)
        parameters = self._faiss.SearchParametersHNSW(sel=selector, efSearch=max(128, 4 * k))
        numbers = self._index.search(np.ascontiguousarray(queries), k, params=parameters)[1]
        return [row[row >= 0].astype(np.int64) for row in numbers]

    def vectors(self, numbers: NDArray[np.int64]) -> Vectors:
        rows = [self._index.reconstruct(int(number)) for number in numbers]
        return np.stack(rows) if rows else np.zeros((0, self._index.d), dtype=np.float32)

    def nearest_cosine(self, queries: Vectors) -> NDArray[np.float32]:
        if not len(self):
            return np.zeros(len(queries), dtype=np.float32)
        nearest: NDArray[np.float32] = self._index.search(np.ascontiguousarray(queries), 1)[0][:, 0]
        return nearest
