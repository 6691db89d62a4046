"""A kept batch comes back as it was, is there whole or not at all, and what is no batch is refused."""

import asyncio
import math
from pathlib import Path

import pytest

from trainer.carriers import TrainingSequence
from trainer.checkpoint import CheckpointFailed
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
