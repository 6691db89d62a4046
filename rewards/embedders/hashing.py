"""Hashed n-grams: the default embedder. No model, no download, and the same vectors in every process.

Each word counts by itself, by its three-letter pieces, and together with its predecessor; every such feature adds a
sign at a place that its CRC-32 decides (the hashing trick). Counts are damped by a square root so that frequent words
do not decide. Knows spelling, not meaning.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from rewards.embedders.base import Vectors, unit_rows

_WORD = re.compile(r"[^\W_]+")
MAX_PIECES = 32
"""Of one word."""
WORD_WEIGHT, PIECE_WEIGHT, PAIR_WEIGHT = 1.0, 0.3, 0.7


class HashingEmbedder:
    def __init__(self, dimensions: int) -> None:
        self._dimensions = dimensions

    @property
    def name(self) -> str:
        return f"hashing-1-{self._dimensions}"

    @property
    def dimensions(self) -> int:
        return self._dimensions

    def embed(self, texts: Sequence[str]) -> Vectors:
        vectors = np.zeros((len(texts), self._dimensions), dtype=np.float32)
        for row, text in enumerate(texts):
            words = _WORD.findall(text.lower())
            if words:
                vectors[row] = self._counts(words)
        return unit_rows(np.sign(vectors) * np.sqrt(np.abs(vectors)))

    def _counts(self, words: list[str]) -> NDArray[np.float64]:
        pairs = np.array([crc32(f"{a} {b}".encode()) for a, b in zip(words, words[1:], strict=False)], dtype=np.int64)
        singles = [_word_features(word) for word in words]
        hashes = np.concatenate([pairs, *(hashed for hashed, _ in singles)])
        weights = np.concatenate([np.full(len(pairs), PAIR_WEIGHT), *(weight for _, weight in singles)])
        signed = np.where(hashes & 1, weights, -weights)
        counts: NDArray[np.float64] = np.bincount(
            (hashes >> 1) % self._dimensions, weights=signed, minlength=self._dimensions
        ).astype(np.float64)
        return counts


@lru_cache(maxsize=50_000)
def _word_features(word: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Hashes and weights of a word and its pieces."""
    framed = f"<{word}>"
    pieces = [framed[i : i + 3] for i in range(min(MAX_PIECES, len(framed) - 2))]
    hashes = np.array([crc32(text.encode("utf-8", "replace")) for text in (f"w:{word}", *pieces)], dtype=np.int64)
    weights = np.array([WORD_WEIGHT, *(PIECE_WEIGHT for _ in pieces)])
    return hashes, weights
