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
"""Texts whose runs are kept; those of one take half a kilobyte."""
_WORD = re.compile(r"[^\W_]+")

Grams = NDArray[np.uint32]
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
    """Of the whole text where it has fewer words than GRAM; none of a text without words."""
    words = _WORD.findall(text.lower())
    runs = [words[start : start + GRAM] for start in range(max(1, len(words) - GRAM + 1))] if words else []
    return np.unique(np.array([crc32(" ".join(run).encode("utf-8", "replace")) for run in runs], dtype=np.uint32))
