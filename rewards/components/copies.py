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
    """Whether at least `share` of the text's runs stand in the others, together, or `share` of one other's runs stand in
    the text."""
    own, theirs = grams(text), [grams(other) for other in others]
    if not len(own) or not theirs:
        return False
    if np.isin(own, np.concatenate(theirs)).mean() >= share:
        return True
    return any(len(other) and np.isin(other, own, assume_unique=True).mean() >= share for other in theirs)


@lru_cache(maxsize=KEPT_TEXTS)
def grams(text: str) -> Grams:
    """Of the whole text where it has fewer words than GRAM; none of a text without words."""
    words = _WORD.findall(text.lower())
    runs = [words[start : start + GRAM] for start in range(max(1, len(words) - GRAM + 1))] if words else []
    return np.unique(np.array([crc32(" ".join(run).encode("utf-8", "replace")) for run in runs], dtype=np.uint32))
