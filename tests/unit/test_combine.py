"""Totals with known numbers: the published ones exactly, and the order that strict promises."""

import itertools

import pytest

from conf.errors import ConfigError
from conf.schema.reward import (
    AtomicReward,
    ExecutionReward,
    LinearShaping,
    MemoryReward,
    PenaltyConfig,
    RewardConfig,
)
from rewards.combine import Combiner, Components
from rewards.components.penalties import PENALTIES
from rewards.components.repetition import repeated_share

STRICT = RewardConfig(
    rank_correct_first=True, atomic=AtomicReward(shaping=LinearShaping()), penalties=PenaltyConfig(length=0.3)
)


def values(
    form: float,
    execution: int,
    atomic: float | None,
    memory: float | None,
    length: float = 0.0,
    repetition: float = 0.0,
) -> Components:
    shares = {"length": length, "repetition": repetition}
    return Components(format=form, execution=execution, atomic=atomic, memory=memory, penalties=shares)


@pytest.mark.parametrize(
    ("given", "total"),
    [
        (values(1, 2, 1.0, 1.0), 4.0),
        (values(1, 2, 0.2, 1.0), 4.0),
        (values(0, 2, 1.0, 1.0), 0.0),
        (values(1, 0, 0.9, 0.0), 1.0),
        (values(1, 1, 0.0, 0.0), 2.0),
        (values(1, 1, 1.0, 0.0), 2.0 + 0.05 + 0.95 * 0.79),
        (values(1, 1, 0.5, 0.25), 2.25 + 0.025 + 0.95 * 0.79 * 0.5**0.2),
        (values(1, 1, 0.01, 0.0), 2.0 + 0.0005 + 0.95 * 0.79 * 0.01**0.2),
        (values(1, 1, None, None), 2.0),
    ],
)
def test_published_totals(given: Components, total: float) -> None:
    assert Combiner(RewardConfig()).total(given) == pytest.approx(total, abs=1e-12)


def test_published_shaping_is_nearly_flat_as_the_reference_page_says() -> None:
    combiner = Combiner(RewardConfig())
    assert [round(combiner.shaped(s), 2) for s in (0.01, 0.5, 1.0)] == [0.3, 0.68, 0.8]


def test_strict_keeps_any_wrong_answer_below_any_right_one() -> None:
    combiner = Combiner(STRICT)
    grid = list(itertools.product((0.0, 1.0), (0.0, 0.5, 1.0), (0.0, 1.0), (0.0, 1.0)))
    wrong = [combiner.total(values(f, e, a, m, n)) for f, a, m, n in grid for e in (0, 1)]
    right = [combiner.total(values(f, 2, a, 1.0, n)) for f, a, _, n in grid]
    assert max(wrong) < min(right)
    assert min(wrong) == 0.0
    assert max(right) == 4.0


def test_strict_is_nearly_linear_in_the_overlap() -> None:
    combiner = Combiner(STRICT)
    totals = [combiner.total(values(1, 1, s, 0.0)) for s in (0.0, 0.25, 0.5, 0.75, 1.0)]
    steps = [b - a for a, b in itertools.pairwise(totals)]
    assert steps == pytest.approx([steps[0]] * 4)
    assert steps[0] > 0.05


@pytest.mark.parametrize(("needs", "paid"), [(False, 0.5), (True, 0.0)])
def test_memory_below_execution_1_is_paid_as_published_and_not_where_it_needs_execution(
    needs: bool, paid: float
) -> None:
    combiner = Combiner(RewardConfig(memory=MemoryReward(needs_execution=needs)))
    assert combiner.total(values(1, 0, None, 0.5)) == pytest.approx(1.0 + paid)
    assert combiner.total(values(1, 1, None, 0.5)) == pytest.approx(2.5)
    assert combiner.total(values(1, 2, None, 1.0)) == pytest.approx(4.0)


def test_a_malformed_right_answer_keeps_its_rank_under_strict_only() -> None:
    assert Combiner(STRICT).total(values(0, 2, 1.0, 1.0)) == pytest.approx(3.0)
    assert Combiner(STRICT).total(values(0, 1, 1.0, 1.0)) == 0.0


def test_penalties_are_deducted_but_never_below_zero() -> None:
    combiner = Combiner(RewardConfig(penalties=PenaltyConfig(length=0.5, repetition=2.0)))
    assert combiner.total(values(1, 2, 1.0, 1.0, length=0.5, repetition=0.25)) == pytest.approx(3.25)
    assert combiner.total(values(1, 0, 0.0, 0.0, repetition=1.0)) == 0.0


def test_every_penalty_has_its_weight() -> None:
    assert set(PENALTIES) == set(PenaltyConfig.model_fields)


def test_components_switched_off_add_nothing() -> None:
    no_execution = RewardConfig(execution=ExecutionReward(enabled=False))
    right, near = (Combiner(no_execution).total(values(1, e, s, 1.0)) for e, s in ((2, 1.0), (1, 0.9)))
    assert right > near
    off = RewardConfig.model_validate({name: {"enabled": False} for name in ("format", "atomic", "memory")})
    assert Combiner(off).total(values(0, 2, 1.0, 1.0)) == 2.0  # nor does a gate remain of the format


def test_impossible_ranks_die_at_construction() -> None:
    with pytest.raises(ConfigError, match="rank_correct_first"):
        Combiner(STRICT.model_copy(update={"penalties": PenaltyConfig(length=5.0)}))


@pytest.mark.parametrize(
    ("text", "share"),
    [("one two three", 0.0), ("a b c d e", 0.0), ("a b c d a b c d", 1 / 5), ("x x x x x x", 2 / 3), ("", 0.0)],
)
def test_repeated_share(text: str, share: float) -> None:
    assert repeated_share(text) == pytest.approx(share)
