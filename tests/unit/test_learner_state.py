"""What a learner writes and reads: no rank is left waiting for one that cannot write, and nothing is unpickled."""

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from conf.errors import QuorumError
from conf.schema.model import PretrainedModel
from tests.tiny_qwen2 import tiny_qwen2
from trainer.learner.errors import PolicyNotLoadable
from trainer.learner.policy import load_model
from trainer.learner.state import Progress, save_state
from trainer.warmup.policy import pretrained_policy


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_cannot_write_has_taken_part_in_all_that_is_collective(tmp_path, monkeypatch, rank):
    ended = []

    def gathered(name: str) -> Iterator[tuple[str, torch.Tensor]]:
        yield name, torch.zeros(1)
        ended.append(name)

    monkeypatch.setattr("trainer.learner.state.gathered_weights", lambda model, sharded: gathered("weights"))
    monkeypatch.setattr("trainer.learner.state.gathered_trainable", lambda model, sharded: gathered("adapters"))
    engine = SimpleNamespace(module=SimpleNamespace(language_model=None))
    spec = SimpleNamespace(learner=SimpleNamespace(zero_stage=3, lora=SimpleNamespace(rank=4)), policy="")
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(NotADirectoryError):
        save_state(file / "folder", engine, spec, Progress(applied=0, skipped=0), rank=rank, world_size=2)
    assert ended == ["weights", "adapters"]


def test_pickled_weights_are_refused(tmp_path):
    model = tiny_qwen2()
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(PolicyNotLoadable, match="safetensors"):
        load_model(str(tmp_path), packing="padded", device="cpu", dtype=torch.float32)
    with pytest.raises(QuorumError, match="no model can be loaded"):
        pretrained_policy(PretrainedModel(path=str(tmp_path)), 0, torch.float32)
