"""Which rows of a batch begin with the same blocks of the cache, as completions of one prompt do.

Rows that share a block also agree in all before it, if not always in the blocks' numbers: vLLM knows a full block by
its tokens and those before them.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Siblings:
    """Rows that begin with the same blocks: those of order[starts[g]:starts[g + 1]] have their first shared[g] in
    common, and at least one token after them."""

    order: np.ndarray
    """[N] int64."""
    starts: np.ndarray
    """[G + 1] int64."""
    shared: np.ndarray
    """[G] int64."""
    longest: int
    """Tokens that the blocks of the longest row have room for."""


def siblings(table: np.ndarray, lengths: np.ndarray, size: int) -> Siblings:
    """`table` [N, B]: the blocks of each row; `lengths` [N]: its tokens, the new one included; `size`: of a block."""
    before_last = np.arange(table.shape[1]) < ((lengths - 1) // size)[:, None]
    users = np.bincount(table[before_last], minlength=int(table.max()) + 1)
    depth = (before_last & (users[table] > 1)).sum(axis=1)
    rows = np.arange(len(table))
    last_shared = np.where(depth > 0, table[rows, np.maximum(depth, 1) - 1], -1 - rows)
    order = np.argsort(last_shared, kind="stable")
    starts = np.flatnonzero(np.diff(last_shared[order], prepend=np.iinfo(np.int64).min))
    longest = -(-int(lengths.max()) // size) * size
    return Siblings(order, np.append(starts, len(rows)), depth[order[starts]], longest)
