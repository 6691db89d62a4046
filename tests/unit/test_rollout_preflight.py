"""A policy folder that cannot work is named before an engine starts."""

import json
from pathlib import Path

import pytest

from conf.schema.rollout import EngineConfig
from rollout.errors import ContextTooSmall, ModelFolderMissing, NotEnoughMemory, TokenizerMismatch
from rollout.preflight import check_context, check_memory, check_model_folder, stop_tokens


class FakeTokenizer:
    def __init__(self, size: int, eos: int | None) -> None:
        self._size = size
        self.eos_token_id = eos

    def __len__(self) -> int:
        return self._size


def test_missing_parts_of_a_model_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelFolderMissing, match="does not exist"):
        check_model_folder(tmp_path / "nowhere")
    with pytest.raises(ModelFolderMissing, match=r"no readable config\.json"):
        check_model_folder(tmp_path)
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(ModelFolderMissing, match="holds no JSON object"):
        check_model_folder(tmp_path)
    (tmp_path / "config.json").write_text('{"vocab_size": 10}')
    with pytest.raises(ModelFolderMissing, match="safetensors"):
        check_model_folder(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"x")
    assert check_model_folder(tmp_path) == {"vocab_size": 10}


def test_a_context_beyond_the_models_is_refused_unless_its_rope_is_scaled(tmp_path: Path) -> None:
    short = {"max_position_embeddings": 2048, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}
    check_context(tmp_path, short, 2048)
    with pytest.raises(ContextTooSmall, match=r"holds 2048 tokens, but prompt and completion ask for 2049: lower"):
        check_context(tmp_path, short, 2049)
    check_context(tmp_path, {**short, "rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, 8192)
    check_context(tmp_path, {**short, "rope_scaling": {"type": "linear", "factor": 4.0}}, 8192)
    check_context(tmp_path, {}, 10**6)


def test_every_named_end_token_stops(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [8, 7]}))
    assert stop_tokens(tmp_path, {"vocab_size": 10, "eos_token_id": 9}, FakeTokenizer(10, 8)) == [7, 8, 9]


def test_foreign_tokenizers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TokenizerMismatch, match="11 tokens, the model has embeddings for 10"):
        stop_tokens(tmp_path, {"vocab_size": 10}, FakeTokenizer(11, 1))
    with pytest.raises(TokenizerMismatch, match="end-of-text"):
        stop_tokens(tmp_path, {"vocab_size": 10}, FakeTokenizer(10, None))


def test_a_cache_larger_than_memory_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(NotEnoughMemory, match="lower rollout.engine.kv_cache_gib"):
        check_memory(tmp_path, EngineConfig(kv_cache_gib=100_000))
    check_memory(tmp_path, EngineConfig(kv_cache_gib=0.001))


@pytest.mark.parametrize("text", ["{", "[1]", "7"])
def test_a_generation_config_that_is_no_object_is_refused_before_the_engine(tmp_path, text):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "generation_config.json").write_text(text)
    with pytest.raises(ModelFolderMissing, match="generation_config.json"):
        check_model_folder(tmp_path)
