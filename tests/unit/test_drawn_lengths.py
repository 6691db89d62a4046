"""Completions of recorded lengths: budgets are drawn, groups come back whole."""

import asyncio

import pytest

from conf.errors import QuorumError
from conf.schema.rollout import SamplingConfig
from rewards.carriers import SqlTask
from rollout.carriers import Completion, Group, Prompt
from rollout.replayed_lengths import DrawnLengths, read_lengths

PROMPT = Prompt(
    task=SqlTask(id="t", db_id="d", question="?", gold_sqls=("SELECT 1",), databases=("d.sqlite",)),
    text="?",
    token_ids=(1,),
)


class Endless:
    """Writes until its budget ends."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def generate(self, prompt, *, group_id, n, sampling):
        self.asked.append(group_id)
        one = Completion(
            text="x",
            token_ids=(7,) * sampling.max_tokens,
            logprobs=(-1.0,) * sampling.max_tokens,
            version_spans=((0, 0),),
            finish_reason="length",
        )
        return Group(id=group_id, prompt=prompt, completions=(one,) * n)


def lengths_of(group_id: str, seed: int = 0) -> list[int]:
    source = DrawnLengths(Endless(), [3, 5, 80], seed=seed)
    sampling = SamplingConfig(max_tokens=10)
    group = asyncio.run(source.generate(PROMPT, group_id=group_id, n=40, sampling=sampling))
    assert group.id == group_id
    return [len(completion.token_ids) for completion in group.completions]


def test_lengths_are_the_recorded_ones_within_the_budget_and_repeat():
    lengths = lengths_of("7.0")
    assert len(lengths) == 40
    assert set(lengths) == {3, 5, 10}
    assert lengths == lengths_of("7.0")
    assert lengths != lengths_of("8.0")
    assert lengths != lengths_of("7.0", seed=1)


def test_requests_have_names_of_their_own():
    source = Endless()
    asyncio.run(DrawnLengths(source, [2], seed=0).generate(PROMPT, group_id="g", n=3, sampling=SamplingConfig()))
    assert source.asked == ["g/0", "g/1", "g/2"]


@pytest.mark.parametrize("text", ["", "12\nmany\n", "3\n0\n"])
def test_a_wrong_file_is_refused_with_its_setting(tmp_path, text):
    file = tmp_path / "lengths.txt"
    file.write_text(text)
    with pytest.raises(QuorumError, match="rollout.lengths="):
        read_lengths(file)
