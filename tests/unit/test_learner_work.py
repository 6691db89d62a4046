"""Counts over the updates of one step."""

import pytest

from trainer.learner.work import Work, tokens_per_update


@pytest.mark.parametrize(
    ("tokens", "expected"), [([12.0], 12.0), ([6.0, 2.0], 4.0), ([0.0, 0.0, 0.0, 12.0], 12.0), ([0.0], 0.0)]
)
def test_updates_without_tokens_are_not_counted(tokens, expected):
    work = [Work(batches=[], own=0, sequences=0.0, tokens=count) for count in tokens]
    assert tokens_per_update(work) == expected
