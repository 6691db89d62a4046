"""When two results are the same answer: the one equality of rewards, voting, recall and benchmarks.

Cells are typed and compare as in Python: 1 equals 1.0, '1' differs from 1, NULL equals only NULL and differs from '',
text is case-sensitive, integers are exact at any size, there is no float tolerance (inexact.py has the one for sums of
reals). Column names never count, duplicate ones lose nothing.

* `bird`: the sets of rows are equal, columns by position. Order and duplicates do not count.
* `spider`: the bags of rows are equal (their sequences, where `ordered`) after one permutation of the predicted
columns.
* Two empty results are equal at any width under both, as in both official scorers.

`digest` is for voting and caches. Equal results have equal digests, in every process. The converse holds for `bird`,
for ordered `spider` results and for every bag except contrived ones in which no row and no column can be told apart
from another by its contents, so that different digests prove a difference and equal ones agree with `equal` in
practice; `equal` decides.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from hashlib import blake2b

from conf.schema.data import Denotation
from rewards.carriers import Execution, Value

Row = tuple[Value, ...]
SEARCH_CELLS = 4_000_000
"""Cells looked at in search of a column permutation before two results count as different. The largest results that
a budget lets through need 1.4 million where every column can be told from the others by its contents."""
EMPTY = "empty"


def equal(gold: Execution, predicted: Execution, *, policy: Denotation, ordered: bool) -> bool:
    """Whether both results are the same denotation. `ordered`: the gold has a top-level ORDER BY (spider only).

    A failed execution equals nothing, not even itself.
    """
    if gold.status != "ok" or predicted.status != "ok":
        return False
    return rows_equal(gold.rows, predicted.rows, policy=policy, ordered=ordered)


def rows_equal(gold: Sequence[Row], predicted: Sequence[Row], *, policy: Denotation, ordered: bool) -> bool:
    """The same of the rows of two executions that ran."""
    if not gold or not predicted:
        return not gold and not predicted
    if policy == "bird":
        return set(gold) == set(predicted)
    if len(gold) != len(predicted) or len(gold[0]) != len(predicted[0]):
        return False
    if ordered:
        return Counter(zip(*gold, strict=True)) == Counter(zip(*predicted, strict=True))
    return Counter(gold) == Counter(predicted) or found_within(gold, [0] * len(gold), predicted, [0] * len(gold))


def found_within(
    gold: Sequence[Row], gold_groups: Sequence[int], predicted: Sequence[Row], groups: Sequence[int]
) -> bool:
    """Whether one permutation of columns turns each predicted row into a gold row of the same group, each gold row
    used once.

    Both are non-empty and of one width. Groups of equal size are then equal bags; of a larger group of the gold, the
    prediction holds some rows. False also where the search takes more than SEARCH_CELLS.
    """
    wanted, offered = _Side(gold, gold_groups), _Side(predicted, groups)
    search = _Search(wanted, offered)
    start = search.refined(wanted.groups, wanted.kinds(), offered.groups, offered.kinds())
    return start is not None and search.permutation(start, search.choices(start))


def digest(execution: Execution, *, policy: Denotation, ordered: bool) -> str:
    """64 hexadecimal digits, or "empty". Raises ValueError for a failed execution: it has no denotation."""
    if execution.status != "ok":
        raise ValueError(f"a failed execution has no denotation ({execution.error})")
    return rows_digest(execution.rows, policy=policy, ordered=ordered)


def rows_digest(rows: Sequence[Row], *, policy: Denotation, ordered: bool) -> str:
    """The same of the rows of an execution that ran."""
    if not rows:
        return EMPTY
    rows = _canonical(rows)
    if policy == "bird":
        return _hash(sorted({repr(row) for row in rows}))
    if ordered and len(rows) > 1:  # one row is its own bag: a query with ORDER BY and one without agree on it
        return _hash(sorted(_hash(map(repr, column)) for column in zip(*rows, strict=True)))
    if len(rows[0]) == 1:
        return _hash(sorted(map(repr, rows)))
    return _bag_digest(rows)


def is_trivial(execution: Execution) -> bool:
    """Whether the result is empty or holds nothing but zeros and NULLs."""
    return not any(value is not None and value != 0 for row in execution.rows for value in row)


_Ids = tuple[Sequence[int], Sequence[int]]
"""A class for each row of the gold and of the prediction; rows can only be paired within one."""


class _Side:
    """The different rows of one result, with how often each stands in its group."""

    def __init__(self, rows: Sequence[Row], groups: Sequence[int]) -> None:
        counts = Counter(zip(groups, rows, strict=True))
        self.groups = [group for group, _ in counts]
        self.rows = [row for _, row in counts]
        self.columns: list[Sequence[Value]] = list(zip(*self.rows, strict=True))
        self.total = len(rows)
        self._counts = None if len(counts) == len(rows) else list(counts.values())

    def kinds(self) -> list[int]:
        """For every row a hash of its cells in any order: what a column permutation leaves alone."""
        return [hash(frozenset(Counter(row).items())) for row in self.rows]

    def sums(self, ids: Sequence[Hashable]) -> Counter[Hashable]:
        """How many rows each class holds."""
        if self._counts is None:
            return Counter(ids)
        sums: Counter[Hashable] = Counter()
        for key, count in zip(ids, self._counts, strict=True):
            sums[key] += count
        return sums


class _Search:
    """Looks for a permutation of columns, depth first: each column that is assigned splits the classes of rows."""

    def __init__(self, wanted: _Side, offered: _Side) -> None:
        self._wanted, self._offered = wanted, offered
        self._left = SEARCH_CELLS

    def refined(
        self, gold_ids: Sequence[int], column: Sequence[Value], ids: Sequence[int], other: Sequence[Value]
    ) -> _Ids | None:
        """The classes split by the contents of one column of each side; None where a class then holds more predicted
        rows than gold ones."""
        self._left -= len(gold_ids) + len(ids)
        names: dict[tuple[int, Value], int] = {}
        split = [names.setdefault(pair, len(names)) for pair in zip(gold_ids, column, strict=True)]
        found = [names.get(pair, -1) for pair in zip(ids, other, strict=True)]
        held, needed = self._wanted.sums(split), self._offered.sums(found)
        return (split, found) if all(held[key] >= count for key, count in needed.items()) else None

    def choices(self, start: _Ids) -> list[list[int]]:
        """For every gold column the predicted columns that hold its cells, each in a row of the same class."""
        held = [self._wanted.sums(list(zip(start[0], column, strict=True))) for column in self._wanted.columns]
        needed = [self._offered.sums(list(zip(start[1], column, strict=True))) for column in self._offered.columns]
        if self._wanted.total == self._offered.total:
            kinds = [frozenset(counter.items()) for counter in needed]
            return [[i for i, kind in enumerate(kinds) if kind == own] for own in (frozenset(h.items()) for h in held)]
        return [[i for i, need in enumerate(needed) if need <= own] for own in held]

    def permutation(self, start: _Ids, choices: Sequence[Sequence[int]]) -> bool:
        """Whether one can be found before the work is used up."""
        order = sorted(range(len(choices)), key=lambda i: len(choices[i]))
        states, taken = [start], [-1] * len(order)
        used: set[int] = set()
        waiting = [iter(choices[order[0]])]
        while waiting and self._left > 0:
            depth = len(waiting) - 1
            used.discard(taken[depth])  # what was tried at this depth before
            taken[depth] = column = next(waiting[-1], -1)
            if column < 0:
                waiting.pop()
                states.pop()
                continue
            if column in used:
                taken[depth] = -1  # it belongs to another depth
                self._left -= 1
                continue
            used.add(column)
            gold_ids, ids = states[-1]
            wanted, offered = self._wanted.columns[order[depth]], self._offered.columns[column]
            refined = self.refined(gold_ids, wanted, ids, offered)
            if refined is None:
                continue
            if depth + 1 == len(order):
                return True
            states.append(refined)
            waiting.append(iter(choices[order[depth + 1]]))
        return False


def _canonical(rows: Sequence[Row]) -> Sequence[Row]:
    """Rows in which numbers that are equal have one form: whole floats become integers (exact at any size)."""
    if not any(type(value) is float for row in rows for value in row):
        return rows
    return [tuple([int(v) if type(v) is float and v.is_integer() else v for v in row]) for row in rows]


def _bag_digest(rows: Sequence[Row]) -> str:
    """Invariant under row order and column order: every column with its values and the rows they stand in."""
    cells = [[repr(value) for value in column] for column in zip(*rows, strict=True)]
    kinds = [_hash(sorted(row)) for row in zip(*cells, strict=True)]
    columns = (_hash(sorted(map("".join, zip(kinds, column, strict=True)))) for column in cells)
    return _hash(sorted(columns))


def _hash(parts: Iterable[str]) -> str:
    """Of a sequence of reprs or hexadecimal digests: NUL occurs in neither, so it separates them."""
    return blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=32).hexdigest()
