"""Which columns a question needs least, by words alone.

A column scores by the words of its name, its table's name and its example values that occur in the question or the
evidence. The ranking needs no model and is the same on every machine; it does not know synonyms.
"""

import re
from collections.abc import Sequence

from rollout.prompt.described import DescribedColumn

_NAME_WEIGHT = 4
_VALUE_WEIGHT = 3
_TABLE_WEIGHT = 2
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_PLURAL = re.compile(r"(?P<y>ies?)$|(?<=ss|ch|sh)es$|(?<=x)es$|(?<=[^s])s$")
_EVERYDAY = frozenset(
    "a an and are as at be by do for from has have in is it not of on or that the to was were what which with".split()
)
"""Words of every question; they say nothing about a column such as `is_open`."""


def words(text: str) -> frozenset[str]:
    """Lower-case words without plural endings; snake_case and camelCase names are split."""
    return frozenset(_stem(word.lower()) for word in _WORD.findall(text)) - _EVERYDAY


def least_relevant_first(columns: Sequence[DescribedColumn], text: str) -> list[DescribedColumn]:
    """Columns in the order in which to leave them out: plain columns before any key, ties from the schema's end."""
    wanted = words(text)
    position = {id(column): index for index, column in enumerate(columns)}
    return sorted(columns, key=lambda c: (c.is_key, _score(c, wanted), -position[id(c)]))


def _score(column: DescribedColumn, wanted: frozenset[str]) -> int:
    values = frozenset().union(*(words(example) for example in column.examples)) if column.examples else frozenset()
    return (
        _NAME_WEIGHT * len(words(column.name) & wanted)
        + _VALUE_WEIGHT * len(values & wanted)
        + _TABLE_WEIGHT * len(words(column.table) & wanted)
    )


def _stem(word: str) -> str:
    """Without a plural ending; "entries" and "movies" meet "entry" and "movie" in "entry" and "movy"."""
    if len(word) <= 3:
        return word
    return _PLURAL.sub(lambda match: "y" if match["y"] else "", word)
