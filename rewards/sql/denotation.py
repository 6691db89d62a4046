"""When two results are the same answer: the one equality of rewards, voting, recall and benchmarks.

Cells are typed and compare as in Python: 1 equals 1.0, '1' differs from 1, NULL equals only NULL and differs from '',
text is case- sensitive, integers are exact at any size, there is no float tolerance. Column names never count,
duplicate ones lose nothing.

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
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b

from conf.schema.data import Denotation
from rewards.carriers import Execution, Value

Row = tuple[Value, ...]
MAX_ASSIGNMENTS = 10_000
"""Column assignments tried before two bags count as different. Columns that differ in content never need a second
try."""
EMPTY = "empty"


def equal(gold: Execution, predicted: Execution, *, policy: Denotation, ordered: bool) -> bool:
    """Whether both results are the same denotation. `ordered`: the gold has a top-level ORDER BY (spider only).

    A failed execution equals nothing, not even itself.
    """
    if gold.status != "ok" or predicted.status != "ok":
        return False
    if not gold.rows or not predicted.rows:
        return not gold.rows and not predicted.rows
    if policy == "bird":
        return set(gold.rows) == set(predicted.rows)
    if len(gold.rows) != len(predicted.rows) or len(gold.rows[0]) != len(predicted.rows[0]):
        return False
    if ordered:
        return Counter(zip(*gold.rows, strict=True)) == Counter(zip(*predicted.rows, strict=True))
    return _bags_equal(gold.rows, predicted.rows)


def digest(execution: Execution, *, policy: Denotation, ordered: bool) -> str:
    """64 hexadecimal digits, or "empty". Raises ValueError for a failed execution: it has no denotation."""
    if execution.status != "ok":
        raise ValueError(f"a failed execution has no denotation ({execution.error})")
    if not execution.rows:
        return EMPTY
    rows = _canonical(execution.rows)
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


def _bags_equal(gold: Sequence[Row], predicted: Sequence[Row]) -> bool:
    """Bags of rows, up to one permutation of columns; both non-empty and of equal shape."""
    rows = Counter(gold)
    if rows == Counter(predicted):
        return True
    signatures = [_signature(column, kinds) for table in (gold, predicted) for kinds, column in _columns(table)]
    width = len(gold[0])
    wanted, offered = signatures[:width], signatures[width:]
    if Counter(wanted) != Counter(offered):
        return False
    choices = [[i for i in range(width) if offered[i] == signature] for signature in wanted]
    tries = 0
    for order in _assignments(choices, gold, predicted, []):
        tries += 1
        if len(order) == width or tries == MAX_ASSIGNMENTS:
            return len(order) == width
    return False


def _columns(rows: Sequence[Row]) -> Iterator[tuple[list[int], tuple[Value, ...]]]:
    """Each column with, for every row, a hash of that row's cells in any order: what a column permutation leaves
    alone."""
    kinds = [hash(frozenset(Counter(row).items())) for row in rows]
    return ((kinds, column) for column in zip(*rows, strict=True))


def _signature(column: Sequence[Value], kinds: Sequence[int]) -> frozenset[tuple[tuple[Value, int], int]]:
    return frozenset(Counter(zip(column, kinds, strict=True)).items())


def _assignments(
    choices: list[list[int]], gold: Sequence[Row], predicted: Sequence[Row], chosen: list[int]
) -> Iterator[list[int]]:
    """Depth-first assignments of predicted columns whose projections equal the gold's first columns as bags.

    Yields every partial assignment that holds, so that the caller can count the work; a full one is a solution.
    """
    yield chosen
    if len(chosen) == len(choices):
        return
    width = len(chosen) + 1
    wanted = Counter(row[:width] for row in gold)
    for column in choices[len(chosen)]:
        if column in chosen:
            continue
        candidate = [*chosen, column]
        if Counter(tuple([row[i] for i in candidate]) for row in predicted) == wanted:
            yield from _assignments(choices, gold, predicted, candidate)


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
