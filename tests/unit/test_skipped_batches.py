"""A kept batch comes back as it was, is there whole or not at all, and what is no batch is refused."""

import asyncio
import math
from dataclasses import replace
from pathlib import Path

import pytest

from operate.cause import Numbers, cause
from records.checkpoint import CheckpointFailed
from trainer.batch.plan import divide
from trainer.carriers import SkippedUpdates, TrainingSequence
from trainer.learner.skipping import skipped_updates
from trainer.learner.update import MadeUpdate
from trainer.skipped import BatchUnreadable, SkippedBatch, keep, read_batch, write_batch


def test_a_batch_comes_back_with_its_infinities(tmp_path: Path) -> None:
    sequence = TrainingSequence(
        group_index=1,
        prompt_ids=(1, 2),
        completion_ids=(3, 4),
        logprobs=(-0.25, -math.inf),
        advantage=math.inf,
        lags=((0, 0), (1, 2)),
    )
    batch = SkippedBatch(step=7, sequences=(sequence,), task_ids=("a", "b"))
    write_batch(tmp_path / "skipped" / "batch.json", batch)
    assert read_batch(tmp_path / "skipped" / "batch.json") == batch


def test_what_a_step_was_compared_with_comes_back_too(tmp_path: Path) -> None:
    skipped = SkippedUpdates(
        updates=(0, 2),
        groups=frozenset({3, 0}),
        others_after=True,
        old_logprobs=((-1.0, -math.inf), (), (-0.5,)),
    )
    batch = SkippedBatch(step=1, sequences=(), task_ids=(), skipped=skipped, reference="/somewhere")
    write_batch(tmp_path / "batch.json", batch)
    assert read_batch(tmp_path / "batch.json") == batch


def test_the_ranks_accounts_of_a_step_become_one_of_its_sequences() -> None:
    """Four groups of two over two updates and two ranks: the second update was skipped; one completion is masked."""
    sequences = [
        TrainingSequence(
            group_index=n // 2,
            prompt_ids=(1,),
            completion_ids=(2, 3),
            logprobs=(-1.0, -1.0),
            advantage=1.0,
            masked=n == 5,
        )
        for n in range(8)
    ]
    places = divide(sequences, updates=2, ranks=2)
    assert places == [[[0, 1], [4, 5]], [[2, 3], [6, 7]]]
    made = [
        [MadeUpdate(applied=True, old_logprobs=[]), MadeUpdate(applied=False, old_logprobs=[[-4.0, -4.5]])],
        [MadeUpdate(applied=True, old_logprobs=[]), MadeUpdate(applied=False, old_logprobs=[[-6.0, 0.0], [-7.0, 0.0]])],
    ]
    assert skipped_updates(sequences, places, made) == SkippedUpdates(
        updates=(1,),
        groups=frozenset({2, 3}),
        old_logprobs=((), (), (), (), (-4.0, -4.5), (), (-6.0, 0.0), (-7.0, 0.0)),
    )
    first = [[replace(one, applied=applied) for one, applied in zip(rank, (False, True), strict=True)] for rank in made]
    found = skipped_updates(sequences, places, [[replace(one, old_logprobs=[]) for one in rank] for rank in first])
    assert found == SkippedUpdates(updates=(0,), groups=frozenset({0, 1}), others_after=True)
    empty = [[MadeUpdate(applied=None, old_logprobs=[]), made[0][0]]]
    assert skipped_updates(sequences, [[[], list(range(8))]], empty) == SkippedUpdates()


NUMBERS = Numbers(advantage=1.0, engine=(-1.0, -2.0), policy=(-1.0, -2.0), old=None, reference=None)


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        (replace(NUMBERS, advantage=math.inf), "its advantage is inf"),
        (replace(NUMBERS, engine=(-1.0, math.nan)), "token 2 has the log-probability nan under the engine"),
        (replace(NUMBERS, policy=(-math.inf, -1.0)), "token 1 has the log-probability -inf under the policy"),
        (replace(NUMBERS, old=(-1.0, math.nan)), "token 2 has the log-probability nan under the old policy"),
        (replace(NUMBERS, advantage=-1.0, old=(-1.0, -152.0)), "the ratio of token 2 to the old policy is e^150"),
        # Clipped, or bounded by delta, or by the loss itself: the ratio is harmless, and the KL term is the cause.
        (
            replace(NUMBERS, old=(-1.0, -152.0), reference=(99.0, -2.0)),
            "the reference policy gives token 1 e^100 times",
        ),
        (
            replace(NUMBERS, advantage=-1.0, unbounded=False, old=(-1.0, -152.0), reference=(99.0, -2.0)),
            "the reference policy gives token 1 e^100 times",
        ),
        (replace(NUMBERS, exponential_kl=False, reference=(99.0, -2.0)), "none of its own numbers is extreme"),
        (replace(NUMBERS, exponential_kl=False, reference=(math.inf, -2.0)), "the reference policy gives token 1"),
        (replace(NUMBERS, old=(-1.0, -2.0), reference=(-1.0, 98.0)), "the reference policy gives token 2 e^100 times"),
        (replace(NUMBERS, reference=(-1.0, -2.0)), "none of its own numbers is extreme"),
    ],
)
def test_what_is_extreme_about_a_completion_is_told(numbers: Numbers, words: str) -> None:
    assert words in cause(numbers)


@pytest.mark.parametrize("text", ["", "[]", '{"step": 1}', '{"step": 1, "task_ids": [], "sequences": [{"x": 1}]}'])
def test_what_is_no_batch_is_one_sentence(tmp_path: Path, text: str) -> None:
    file = tmp_path / "batch.json"
    file.write_text(text)
    with pytest.raises(BatchUnreadable, match="no batch that a run has kept"):
        read_batch(file)


@pytest.mark.parametrize("error", [CheckpointFailed("learner rank 0: refused"), OSError(28, "No space left on device")])
def test_a_batch_whose_policy_cannot_be_written_leaves_nothing(tmp_path: Path, error: Exception) -> None:
    batch, place = SkippedBatch(step=7, sequences=(), task_ids=()), tmp_path / "skipped" / "step-000007"

    async def whole(folder: Path) -> None:
        (folder / "policy").mkdir()

    async def half(folder: Path) -> None:
        await whole(folder)
        raise error

    with pytest.raises(CheckpointFailed, match="the batch of step 7 could not be kept"):
        asyncio.run(keep(place, batch, half))
    assert list((tmp_path / "skipped").iterdir()) == []
    asyncio.run(keep(place, batch, whole))
    assert sorted(f.name for f in place.iterdir()) == ["batch.json", "policy"]
    assert read_batch(place / "batch.json") == batch
