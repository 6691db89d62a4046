"""Is a reasoning a near-verbatim copy of others? By runs of GRAM words, so that letter case, white space, punctuation,
a word put in here and there, a cut and a string of several copies change little.

Two texts on the same kind of question share phrases, not most of their runs of words. Knows no meaning: what was put
into other words is no copy.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

GRAM = 4
KEPT_TEXTS = 20_000
"""Texts whose runs are kept; those of one take a kilobyte."""
_WORD = re.compile(r"[^\W_]+")

_FACTOR = np.uint64(0x9E3779B97F4A7C15)
"""Odd: what is multiplied by it modulo 2**64 keeps every bit of what it was."""

Grams = NDArray[np.uint64]
"""Hashes of the distinct runs of GRAM words, ascending."""


def is_copy(text: str, others: Sequence[str], share: float) -> bool:
    """Whether at least `share` of the text's runs stand in the others together, or `share` of one other's in the
    text."""
    own, theirs = grams(text), [found for found in map(grams, others) if len(found)]
    if not len(own) or not theirs:
        return False
    lengths = np.array([len(found) for found in theirs])
    together = np.concatenate(theirs)
    places = np.minimum(np.searchsorted(own, together), len(own) - 1)
    shared = own[places] == together
    if np.count_nonzero(np.bincount(places[shared])) >= share * len(own):
        return True
    held = np.add.reduceat(shared, np.cumsum(lengths) - lengths, dtype=np.int64)
    return bool((held >= share * lengths).any())


@lru_cache(maxsize=KEPT_TEXTS)
def grams(text: str) -> Grams:
    """One run of the whole text where it has fewer words than GRAM; none of a text without words."""
    words = _WORD.findall(text.lower())
    codes = np.array([crc32(word.encode("utf-8", "replace")) for word in words], dtype=np.uint64)
    length = min(GRAM, len(words))
    found = np.zeros(len(words) - length + 1 if words else 0, dtype=np.uint64)
    for place in range(length):
        found = found * _FACTOR + codes[place : place + len(found)]
    return np.unique(found)
