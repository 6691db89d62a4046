"""What the memory asks of an embedder."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from conf.errors import QuorumError

Vectors = NDArray[np.float32]
"""One vector a row."""


class EmbedderUnavailable(QuorumError):
    """The configured embedder's package or model cannot be loaded."""


class Embedder(Protocol):
    @property
    def name(self) -> str:
        """Identifies model and settings; vectors of different names cannot be compared."""

    @property
    def dimensions(self) -> int: ...

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Array [texts, dimensions] of rows of length 1 (0 for a text without content)."""


def unit_rows(vectors: Vectors) -> Vectors:
    """Rows scaled to length 1; rows of zeros stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Vectors = (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    return scaled
