"""What a learner writes and reads: no rank is left waiting for one that cannot write, whatever cannot be written is a
failed checkpoint, the base model's files stay as they are, and nothing is unpickled."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from conf.errors import QuorumError
from conf.schema.model import PretrainedModel
from conf.schema.prompt import PromptConfig
from conf.schema.stages import WarmupConfig
from records.checkpoint import CheckpointFailed
from rollout.tasks.carriers import TaskSet
from tests.tiny_qwen2 import tiny_qwen2
from trainer.learner.errors import PolicyNotLoadable
from trainer.learner.policy import load_model
from trainer.learner.rank import LearnerRank
from trainer.learner.state import Progress, save_state
from trainer.model_folder import write_model
from trainer.warmup import stage
from trainer.warmup.cache import publishing
from trainer.warmup.corpus import Corpus, Example
from trainer.warmup.policy import base_folder, pretrained_policy


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


REFUSED = [
    '{"do_sample": false, "temperature": 0.6, "top_p": 0.95, "eos_token_id": [7, 8]}\n',
    '{ "pad_token_id": -1 }',
    '{"num_beams": 1, "length_penalty": 2.0, "our_own": {"kept": [1, 2]}}',
]
"""generation_config.json that transformers reads and does not write."""


def base(folder: Path, generation: str | None) -> Path:
    tiny_qwen2().save_pretrained(folder)
    (folder / "generation_config.json").unlink()
    if generation is not None:
        (folder / "generation_config.json").write_text(generation)
    for name in ("tokenizer.model", "tokenizer_config.json"):
        (folder / name).write_text(f"the base's {name}")
    return folder


def learner_of(policy: Path) -> LearnerRank:
    """A rank that can only save: of a real model, without a process group."""
    model = load_model(str(policy), packing="padded", device="cpu", dtype=torch.float32)
    rank = object.__new__(LearnerRank)
    optimizer = SimpleNamespace(state={}, param_groups=[])
    rank._engine = SimpleNamespace(module=SimpleNamespace(language_model=model), optimizer=optimizer)
    learner = SimpleNamespace(zero_stage=0, lora=SimpleNamespace(rank=0))
    rank._spec = SimpleNamespace(learner=learner, policy=str(policy))
    rank._progress, rank._rank, rank._world = Progress(applied=3, skipped=0), 0, 1
    return rank


@pytest.fixture
def barriers(monkeypatch) -> list[None]:
    passed: list[None] = []
    monkeypatch.setattr("trainer.learner.rank.dist.barrier", lambda: passed.append(None))
    return passed


@pytest.mark.parametrize("generation", REFUSED)
def test_the_base_models_files_are_copied_as_they_are(tmp_path, barriers, generation):
    policy = base(tmp_path / "base", generation)
    rank = learner_of(policy)
    rank.save(tmp_path / "out")
    written = tmp_path / "out" / "policy"
    for name in ("generation_config.json", "tokenizer.model", "tokenizer_config.json"):
        assert (written / name).read_bytes() == (policy / name).read_bytes()
    before, after = (load_file(folder / "model.safetensors") for folder in (policy, written))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert json.loads((written / "config.json").read_text())["vocab_size"] == 50
    # What is written is a base in turn: a run that goes on from it, or another one, copies the same bytes.
    learner_of(written).save(tmp_path / "again")
    assert (tmp_path / "again" / "policy" / "generation_config.json").read_text() == generation
    assert len(barriers) == 2


def test_a_base_model_without_generation_config_stays_without(tmp_path, barriers):
    rank = learner_of(base(tmp_path / "base", None))
    held = rank._engine.module.language_model.generation_config
    rank.save(tmp_path / "out")
    assert not (tmp_path / "out" / "policy" / "generation_config.json").exists()
    assert rank._engine.module.language_model.generation_config is held


@pytest.mark.parametrize(
    "error",
    [
        ValueError("GenerationConfig is invalid:\n- `temperature`: greedy"),
        TypeError("not JSON serializable"),
        KeyError("lm_head.weight"),
        AttributeError("no such attribute"),
        StrictDataclassError("validation"),
        SafetensorError("header too large"),
        RuntimeError("unexpected pos 64 vs 0"),
        OSError(28, "No space left on device"),
    ],
)
def test_whatever_a_writer_raises_is_a_failed_checkpoint(tmp_path, monkeypatch, barriers, error):
    rank = learner_of(base(tmp_path / "base", None))

    def refuses(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(rank._engine.module.language_model, "save_pretrained", refuses)
    with pytest.raises(CheckpointFailed, match="^learner rank 0: ") as caught:
        rank.save(tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert barriers == [None]


@pytest.mark.parametrize("generation", REFUSED)
def test_a_warmed_up_policy_keeps_the_base_models_generation_config(tmp_path, generation):
    settings = PretrainedModel(path=str(base(tmp_path / "base", generation)))
    model = pretrained_policy(settings, 0, torch.float32)
    write_model(model, tmp_path / "warm", base_folder(settings))
    assert (tmp_path / "warm" / "generation_config.json").read_text() == generation
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "warm").num_parameters() == model.num_parameters()


def test_a_warmed_up_policy_keeps_the_base_models_tokenizer(tmp_path, monkeypatch):
    settings = PretrainedModel(path=str(base(tmp_path / "base", None)))
    (tmp_path / "base" / "additional_chat_templates").mkdir()
    (tmp_path / "base" / "additional_chat_templates" / "tools.jinja").write_text("{{ tools }}")
    corpus = Corpus(examples=(Example(input_ids=(1, 2), prompt_tokens=1),), dropped=())
    monkeypatch.setattr(stage, "_tokenizer", lambda *_: SimpleNamespace(eos_token_id=2))
    monkeypatch.setattr(stage, "build_corpus", lambda *_, **__: corpus)
    monkeypatch.setattr(stage, "_train", lambda *_, **__: tiny_qwen2())
    tasks = TaskSet(warmup=(), train=(), heldout=(), traces={}, dropped=())
    warmup = WarmupConfig(cache=str(tmp_path / "cache"))
    made = stage.warm_up(
        tasks, model=settings, prompt=PromptConfig(), warmup=warmup, seed=0, gpu=False, report=lambda *_: None
    )
    for name in ("tokenizer.model", "tokenizer_config.json", "additional_chat_templates/tools.jinja"):
        assert (made.folder / name).read_bytes() == (tmp_path / "base" / name).read_bytes()


@pytest.mark.parametrize("error", [ValueError("refused"), TypeError("no JSON"), OSError(28, "No space left on device")])
def test_a_warm_up_that_cannot_be_written_is_one_sentence_and_leaves_nothing(tmp_path, error):
    def publish() -> None:
        with publishing(tmp_path / "cache" / "policy") as scratch:
            (scratch / "config.json").write_text("{}")
            raise error

    with pytest.raises(QuorumError, match="warmup.cache=.* could not be written: "):
        publish()
    assert list((tmp_path / "cache").iterdir()) == []
