"""A kept batch comes back as it was, and what is no batch is refused."""

import math
from pathlib import Path

import pytest

from trainer.carriers import TrainingSequence
from trainer.skipped import BatchUnreadable, SkippedBatch, read_batch, write_batch


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
