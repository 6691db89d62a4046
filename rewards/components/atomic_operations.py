"""The bag of operations that a query is compared by, and the similarity of two bags.

A query is a weighted multiset: each source, filter, select item, grouping and so on stands in it as a whole, weighted
by its clause, and by its atoms (columns, functions, operators, literals); each SELECT also gives one operation for its
exact form. Two queries score 1 only if their exact forms are equal.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

CLAUSE_WEIGHTS = {
    "select": 6,
    "from": 6,
    "join": 6,
    "where": 6,
    "group": 4,
    "having": 4,
    "order": 4,
    "limit": 4,
    "distinct": 4,
    "set": 8,
    "other": 4,
}
"""Weight of one whole operation, by clause. Each of its atoms weighs 1 in its clause and 1 wherever it stands."""
FORM_WEIGHT = 2
"""Weight of the exact form of one SELECT or compound."""

_DIGESTS = re.compile("⟦[0-9a-f]*⟧")
_ATOM = re.compile(r"""'(?:[^']|'')*'|(?:[^\s()\[\]'"]|"(?:[^"]|"")*")+""")

Operations = dict[str, int]
"""Weight by operation."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What one query does."""

    form: str
    """Digest of the exact form."""
    operations: Mapping[str, int]


def add(operations: Operations, key: str, weight: int) -> None:
    operations[key] = operations.get(key, 0) + weight


def add_all(operations: Operations, more: Mapping[str, int]) -> None:
    for key, weight in more.items():
        operations[key] = operations.get(key, 0) + weight


def add_whole(operations: Operations, path: str, clause: str, forms: Iterable[str]) -> None:
    """Adds each form as an operation of a clause, and its atoms. What nested queries do counts in their own place."""
    weight = CLAUSE_WEIGHTS[clause]
    prefix = f"{path}{clause} "
    for form in forms:
        shown = _DIGESTS.sub("⟦⟧", form) if "⟦" in form else form
        add(operations, prefix + shown, weight)
        for atom in _ATOM.findall(shown):
            add(operations, f"{prefix}~{atom}", 1)
            add(operations, f"~{atom}", 1)


def similarity(left: Profile, right: Profile) -> float:
    """Weighted Jaccard index of two bags, in [0, 1]; 1 if and only if the exact forms are equal."""
    if left.form == right.form:
        return 1.0
    shared = 0
    for key, weight in left.operations.items():
        other = right.operations.get(key)
        if other is not None:
            shared += min(weight, other)
    union = sum(left.operations.values()) + sum(right.operations.values()) - shared
    return shared / union if union else 0.0
