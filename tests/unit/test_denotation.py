"""The one equality: known pairs, and properties over random tables."""

import itertools
import random
import subprocess
import sys
import time
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.carriers import Execution, Value
from rewards.sql.denotation import digest, equal, is_trivial

FAILED = Execution(status="error", error_kind="runtime", error="no such table: x")
Policy = Literal["bird", "spider"]


def ok(*rows: tuple[Value, ...]) -> Execution:
    return Execution(status="ok", columns=tuple("c" for _ in rows[0]) if rows else ("c",), rows=rows)


@pytest.mark.parametrize(
    ("gold", "predicted", "bird", "bag", "sequence"),
    [
        (ok((1,), (2,)), ok((2,), (1,)), True, True, False),
        (ok((1,), (1,)), ok((1,)), True, False, False),
        (ok((1, "a")), ok(("a", 1)), False, True, True),
        (ok((1,)), ok((1.0,)), True, True, True),
        (ok((1, 1.5)), ok((1.0, 1.5)), True, True, True),
        (ok((0.0,)), ok((-0.0,)), True, True, True),
        (ok(("1",)), ok((1,)), False, False, False),
        (ok(("a",)), ok(("A",)), False, False, False),
        (ok((b"a",)), ok(("a",)), False, False, False),
        (ok((None,)), ok(("",)), False, False, False),
        (ok((None,)), ok((None,)), True, True, True),
        (ok((0.1 + 0.2,)), ok((0.3,)), False, False, False),
        (ok((2**53 + 1,)), ok((float(2**53),)), False, False, False),
        (ok((2**53,)), ok((float(2**53),)), True, True, True),
        (ok((2**63 - 1,)), ok((2**63 - 2,)), False, False, False),
        (ok((float("inf"),)), ok((float("inf"),)), True, True, True),
        (ok(), ok(), True, True, True),
        (ok(), Execution(status="ok", columns=("a", "b"), rows=()), True, True, True),
        (ok(), ok((None,)), False, False, False),
        (ok((1, 2), (2, 1)), ok((1, 1), (2, 2)), False, False, False),
        (ok((1, 2), (3, 4)), ok((2, 1), (4, 3)), False, True, True),
        (ok((1, 2), (3, 4)), ok((4, 3), (2, 1)), False, True, False),
        (ok((1, 1, 2), (1, 2, 1)), ok((2, 1, 1), (1, 1, 2)), False, True, True),
        (ok((1, 2)), ok((1,)), False, False, False),
        (ok(("a", "b, 'c'")), ok(("a', 'b", "c")), False, False, False),
    ],
)
def test_known_pairs(gold: Execution, predicted: Execution, bird: bool, bag: bool, sequence: bool) -> None:
    policies: list[tuple[Policy, bool, bool]] = [
        ("bird", False, bird),
        ("spider", False, bag),
        ("spider", True, sequence),
    ]
    for policy, ordered, expected in policies:
        assert equal(gold, predicted, policy=policy, ordered=ordered) is expected, (policy, ordered)
        assert equal(predicted, gold, policy=policy, ordered=ordered) is expected
        same = digest(gold, policy=policy, ordered=ordered) == digest(predicted, policy=policy, ordered=ordered)
        assert same is expected


@pytest.mark.parametrize("row", [(1,), (1, "a"), (None, 2.0, 2)])
def test_one_row_has_one_digest_with_and_without_an_order(row: tuple[Value, ...]) -> None:
    assert digest(ok(row), policy="spider", ordered=True) == digest(ok(row), policy="spider", ordered=False)


def test_a_failed_execution_equals_nothing_and_has_no_digest() -> None:
    assert not equal(FAILED, FAILED, policy="bird", ordered=False)
    assert not equal(ok(), FAILED, policy="spider", ordered=False)
    with pytest.raises(ValueError, match="no such table"):
        digest(FAILED, policy="bird", ordered=False)


def test_one_permutation_holds_for_all_rows() -> None:
    gold = ok((1, 2, 5), (2, 1, 6))
    assert equal(gold, ok((2, 1, 5), (1, 2, 6)), policy="spider", ordered=False)
    assert not equal(gold, ok((1, 2, 5), (1, 2, 6)), policy="spider", ordered=False)


@pytest.mark.parametrize(
    ("execution", "trivial"),
    [
        (ok(), True),
        (ok((0, None), (0.0, None)), True),
        (ok((0,), (1,)), False),
        (ok(("",)), False),
        (ok(("0",)), False),
    ],
)
def test_trivial_results(execution: Execution, trivial: bool) -> None:
    assert is_trivial(execution) is trivial


CELLS = st.sampled_from([None, 0, 1, 2, 1.0, 2.5, "", "1", "a", b"a"])
TABLES = st.integers(1, 4).flatmap(lambda width: st.lists(st.tuples(*[CELLS] * width), min_size=1, max_size=5))


@settings(max_examples=200, deadline=None)
@given(TABLES, st.randoms(use_true_random=False))
def test_shuffled_rows_and_columns_stay_equal(rows: list[tuple[Value, ...]], rng: random.Random) -> None:
    order = rng.sample(range(len(rows[0])), len(rows[0]))
    moved = [tuple(row[i] for i in order) for row in rows]
    assert equal(ok(*rows), ok(*moved), policy="spider", ordered=True)
    assert digest(ok(*rows), policy="spider", ordered=True) == digest(ok(*moved), policy="spider", ordered=True)
    rng.shuffle(moved)
    assert equal(ok(*rows), ok(*moved), policy="spider", ordered=False)
    assert digest(ok(*rows), policy="spider", ordered=False) == digest(ok(*moved), policy="spider", ordered=False)


@settings(max_examples=300, deadline=None)
@given(TABLES, TABLES)
def test_bags_agree_with_brute_force(left: list[tuple[Value, ...]], right: list[tuple[Value, ...]]) -> None:
    def key(rows: list[tuple[Value, ...]]) -> list[str]:
        return sorted(repr([float(v) if isinstance(v, int | float) else v for v in row]) for row in rows)

    width = len(left[0])
    orders = itertools.permutations(range(width)) if len(right[0]) == width else []
    expected = any(key(left) == key([tuple(row[i] for i in order) for row in right]) for order in orders)
    assert equal(ok(*left), ok(*right), policy="spider", ordered=False) is expected
    if expected:
        assert digest(ok(*left), policy="spider", ordered=False) == digest(ok(*right), policy="spider", ordered=False)


def test_wide_tables_of_equal_columns_are_quick() -> None:
    rng = random.Random(0)
    flags = [tuple(rng.randint(0, 1) for _ in range(12)) for _ in range(64)]
    moved = [row[::-1] for row in flags]
    rng.shuffle(moved)
    assert equal(ok(*flags), ok(*moved), policy="spider", ordered=False)
    ones = [(1,) * 40] * 50
    assert not equal(ok(*ones, (1,) * 39 + (2,)), ok(*ones, (1,) * 38 + (2, 2)), policy="spider", ordered=False)


def test_a_search_among_columns_that_look_alike_ends_by_its_work() -> None:
    """Every row and every column has the same contents; large results end no later than small ones."""

    def turned(steps: tuple[int, ...], copies: int) -> list[tuple[Value, ...]]:
        return [tuple(int((i - j) % 24 in steps) for j in range(24)) for i in range(24)] * copies

    started = time.process_time()
    for copies in (1, 2000):
        left, right = turned((0, 1, 3), copies), turned((0, 1, 4), copies)
        assert not equal(ok(*left), ok(*right), policy="spider", ordered=False)
        assert equal(ok(*left), ok(*(row[::-1] for row in left)), policy="spider", ordered=False)
    assert time.process_time() - started < 30


def test_many_equal_columns_do_not_nest_the_search() -> None:
    rows = [(1, 2) + (i,) * 1500 for i in range(3)]
    assert equal(ok(*rows), ok(*(row[::-1] for row in rows)), policy="spider", ordered=False)


def test_digests_are_the_same_in_another_process() -> None:
    code = (
        "from rewards.carriers import Execution; from rewards.sql.denotation import digest;"
        "e = Execution(status='ok', columns=('a', 'b'), rows=((1, 'x'), (2.0, None)));"
        "print(digest(e, policy='spider', ordered=False), digest(e, policy='bird', ordered=False))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    execution = ok((1, "x"), (2.0, None))
    expected = [digest(execution, policy="spider", ordered=False), digest(execution, policy="bird", ordered=False)]
    assert done.stdout.split() == expected
