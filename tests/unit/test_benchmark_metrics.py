"""Sampling metrics, intervals, significance, Soft-F1, efficiency, and the text rules of Spider, with known numbers."""

import math

import pytest

from benchmarks.metrics.bird.efficiency import efficiency, stepped_reward, without_outliers
from benchmarks.metrics.bird.execution import execution_match
from benchmarks.metrics.bird.soft_f1 import soft_f1, soft_f1_unordered
from benchmarks.metrics.spider.results import results_match, results_match_corrected
from benchmarks.metrics.spider.text import executable, order_matters, plug_placeholder, read_prediction
from records.statistics.sampling import mean_at_n, pass_at, recall_at
from records.statistics.significance import holm, mcnemar, paired_difference, randomisation
from rewards.carriers import Execution, Value


def ok(*rows: tuple[Value, ...]) -> Execution:
    return Execution(status="ok", rows=rows)


FAILED = Execution(status="error", error_kind="runtime", error="no such table: t")


@pytest.mark.parametrize(
    ("gold", "predicted", "ordered", "official", "corrected"),
    [
        (ok((1,), (2,)), ok((2,), (1,)), False, True, True),
        (ok((1,), (2,)), ok((2,), (1,)), True, False, False),
        (ok((1,), (1,)), ok((1,)), False, False, False),
        (ok((1, "a"), (2, "b")), ok(("a", 1), ("b", 2)), True, True, True),
        (ok((1, 2), (2, 1)), ok((1, 1), (2, 2)), False, False, False),
        (ok(), Execution(status="ok", columns=("a", "b")), True, True, True),
        (ok((1,)), ok((1.0,)), False, True, True),
        (ok((1, 1.5)), ok((1.0, 1.5)), False, False, True),
        (ok((1, "10")), ok((1.0, "10")), False, False, True),
        (ok(("1",)), ok((1,)), False, False, False),
        (ok((None,)), ok(("",)), False, False, False),
        (ok(("A",)), ok(("a",)), False, False, False),
        (ok((1,)), FAILED, False, False, False),
    ],
)
def test_spider_results(gold: Execution, predicted: Execution, ordered: bool, official: bool, corrected: bool) -> None:
    assert results_match(gold, predicted, ordered=ordered) is official
    assert results_match_corrected(gold, predicted, ordered=ordered) is corrected


def test_spider_text_before_execution() -> None:
    sql = "SELECT DISTINCT a, count(distinct b), 'distinct' FROM t WHERE x > = 1; SELECT 2"
    assert executable(sql, keep_distinct=False) == "SELECT  a, count( b), 'distinct' FROM t WHERE x >= 1;"
    assert executable(sql, keep_distinct=True) == sql.replace("> =", ">=")
    assert executable("SELECT YEAR( CURDATE() ) - x", keep_distinct=True) == "SELECT 2020- x"
    assert plug_placeholder("WHERE value = 'a value' AND Value = 2") == "WHERE 1 = 'a 1' AND Value = 2"
    assert read_prediction("SELECT 1\tconcert_singer\n") == "SELECT 1"
    assert order_matters("SELECT (SELECT a FROM t ORDER BY b)")
    assert not order_matters("SELECT a FROM t ORDER  BY b")


def test_bird_execution() -> None:
    assert execution_match(ok((1, "a"), (1, "a")), ok((1.0, "a")))
    assert not execution_match(ok((1, "a")), ok(("a", 1)))
    assert execution_match(ok(), Execution(status="ok", columns=("a", "b")))
    assert not execution_match(FAILED, FAILED)


def test_soft_f1_pairs_rows_by_position_and_its_variant_by_content() -> None:
    gold = [("a", 1), ("b", 2)]
    assert soft_f1(gold, gold) == soft_f1_unordered(gold, gold) == 1.0
    assert soft_f1(gold, gold[::-1]) == 0.0
    assert soft_f1_unordered(gold, gold[::-1]) == 1.0
    assert soft_f1(gold, [(1, "a"), (2, "b"), (2, "b")]) == 1.0
    # 1.5 cells of two rows found, half a row surplus, half missing.
    assert soft_f1_unordered(gold, [("b", 3), ("a", 1)]) == pytest.approx(0.75)
    assert soft_f1([], []) == 1.0
    assert soft_f1(gold, []) == soft_f1([], gold) == soft_f1_unordered([], gold) == 0.0


def test_soft_f1_of_one_row_too_many() -> None:
    # tp = 1, fp = 1 (the extra row), fn = 0: precision 1/2, recall 1.
    assert soft_f1([(1,)], [(1,), (2,)]) == pytest.approx(2 / 3)
    assert soft_f1_unordered([(1,)], [(2,), (1,)]) == pytest.approx(2 / 3)
    assert soft_f1([(1,)], [(2,), (1,)]) == 0.0


def test_efficiency_steps_and_outliers() -> None:
    assert [stepped_reward(r) for r in (3.0, 2.0, 1.5, 1.0, 0.6, 0.5, 0.3, 0.25, 0.1)] == [
        *(1.25, 1.25, 1.0, 1.0, 0.75, 0.75, 0.5, 0.5, 0.25)
    ]
    scores = efficiency([4.0, 4.0], [1.0, 1.0])
    assert (scores.ratio, scores.spread, scores.ves) == (4.0, 0.0, 2.0)
    assert scores.r_ves == pytest.approx(math.sqrt(1.25))
    assert without_outliers([1.0] * 20 + [100.0]) == [1.0] * 20
    with pytest.raises(ValueError, match="timed repetition"):
        efficiency([], [])


def test_sampling_metrics() -> None:
    right = [False, True, False, True]
    assert [recall_at(right, k) for k in (1, 2, 4)] == [False, True, True]
    assert mean_at_n(right) == 0.5
    assert pass_at(4, 2, 1) == 0.5
    assert pass_at(4, 2, 2) == pytest.approx(1 - 1 / 6)
    assert pass_at(4, 2, 3) == 1.0
    assert pass_at(30, 0, 30) == 0.0
    with pytest.raises(ValueError, match="pass@k"):
        pass_at(4, 5, 1)


def test_mcnemar_is_the_binomial_test_on_disagreements() -> None:
    first = [True] * 10 + [False] * 2 + [True] * 5
    second = [False] * 10 + [True] * 2 + [True] * 5
    # 2 * (C(12,0) + C(12,1) + C(12,2)) / 2**12
    assert mcnemar(first, second) == (10, 2, pytest.approx(2 * 79 / 4096))
    assert mcnemar([True], [True]).p_value == 1.0


def test_the_randomisation_test_by_hand() -> None:
    # Of the 16 signs of four equal differences two are as far from 0 as seen: p = 1/8.
    assert randomisation([0.5] * 4, draws=100_000) == pytest.approx(1 / 8, abs=0.005)
    assert randomisation([1.0, -1.0, 1.0, -1.0]) == 1.0
    assert randomisation([0.0, 0.0]) == 1.0
    assert randomisation([0.1] * 30) == pytest.approx(1 / 10_001)


def test_randomisation_agrees_with_mcnemar_on_binary_scores() -> None:
    first, second = [True] * 9 + [False] * 3, [False] * 9 + [True] * 3
    exact = mcnemar(first, second).p_value
    assert randomisation([b - a for a, b in zip(first, second, strict=True)], draws=200_000) == pytest.approx(
        exact, abs=0.004
    )


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == [pytest.approx(0.03), pytest.approx(0.06), pytest.approx(0.06)]
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_paired_difference() -> None:
    first, second = [0.0] * 50 + [1.0] * 50, [1.0] * 20 + [0.0] * 30 + [1.0] * 50
    interval = paired_difference(first, second)
    assert interval.mean == pytest.approx(0.2)
    assert 0.1 < interval.low < 0.2 < interval.high < 0.3
    with pytest.raises(ValueError, match="same questions"):
        paired_difference([1.0], [])
