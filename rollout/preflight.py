"""What can be told of a policy folder before an engine starts: is it whole, do its parts agree, does it fit."""

import json
from pathlib import Path
from typing import Any

import psutil

from conf.schema.rollout import EngineConfig
from rollout.errors import ContextTooSmall, ModelFolderMissing, NotEnoughMemory, TokenizerMismatch

GIB = 2**30
_HEADROOM = 1.15
"""Activations and the loader's temporary copies, as a share of weights and cache."""


def check_model_folder(folder: Path, *, weights: bool = True) -> dict[str, Any]:
    """The folder's config.json. `weights`: whether the folder must hold some.

    Raises:
        ModelFolderMissing: no such folder, no readable config.json or weights in it, or a generation_config.json that
            is no JSON object.
    """
    if not folder.is_dir():
        raise ModelFolderMissing(f"the model folder {folder} does not exist")
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFolderMissing(f"the folder {folder} holds no readable config.json: it is not a model") from error
    if not isinstance(config, dict):
        raise ModelFolderMissing(f"the config.json of {folder} holds no JSON object: it is not a model")
    if weights and not any(folder.glob("*.safetensors")):
        raise ModelFolderMissing(f"the folder {folder} holds no *.safetensors weights")
    generation_config(folder)
    return config


def generation_config(folder: Path) -> dict[str, Any]:
    """The folder's generation_config.json; empty where it has none.

    Raises:
        ModelFolderMissing: it is no JSON object.
    """
    file = folder / "generation_config.json"
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelFolderMissing(f"{file} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise ModelFolderMissing(f"{file} holds no JSON object")
    return found


def check_context(folder: Path, config: dict[str, Any], max_model_len: int) -> None:
    """Whether the model reaches as far as the engine is asked to; of a scaled rope vLLM alone knows.

    Raises:
        ContextTooSmall: it does not.
    """
    held = config.get("max_position_embeddings")
    if isinstance(held, int) and max_model_len > held and not _rope_is_scaled(config):
        raise ContextTooSmall(
            f"the model {folder} holds {held} tokens, but prompt and completion ask for {max_model_len}: lower "
            "prompt.max_tokens or the max_tokens of the sampling, and the engine's max_model_len where it is set"
        )


def _rope_is_scaled(config: dict[str, Any]) -> bool:
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    kinds = [one for one in (rope, *rope.values()) if isinstance(one, dict)]
    return any(kind.get("rope_type", kind.get("type", "default")) != "default" for kind in kinds)


def stop_tokens(folder: Path, config: dict[str, Any], tokenizer: Any) -> list[int]:
    """Every token that ends a completion: the tokenizer's, the model's and its generation config's.

    Raises:
        TokenizerMismatch: none is named anywhere, or the tokenizer has ids beyond the model's vocabulary.
        ModelFolderMissing: its generation_config.json cannot be read.
    """
    vocabulary = config.get("vocab_size")
    if vocabulary is not None and len(tokenizer) > vocabulary:
        raise TokenizerMismatch(
            f"the tokenizer in {folder} has {len(tokenizer)} tokens, the model has embeddings for {vocabulary}:"
            " they do not belong together"
        )
    sources = [tokenizer.eos_token_id, config.get("eos_token_id"), generation_config(folder).get("eos_token_id")]
    found: set[int] = set()
    for source in sources:
        found.update(source if isinstance(source, list) else () if source is None else (source,))
    if not found:
        raise TokenizerMismatch(f"neither tokenizer nor model in {folder} names an end-of-text token")
    return sorted(found)


def _object(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFolderMissing(f"{file} holds no JSON that can be read: {error}") from error
    if not isinstance(found, dict):
        raise ModelFolderMissing(f"{file} holds no JSON object")
    return found


def check_memory(folder: Path | None, engine: EngineConfig) -> None:
    """Raise NotEnoughMemory unless weights and the requested cache fit into the memory that is free now (CPU).

    Without a folder, for a policy that is still to be made, the cache alone is looked at.
    """
    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors")) if folder else 0
    need = (weights + engine.kv_cache_gib * GIB) * _HEADROOM
    free = psutil.virtual_memory().available
    if need > free:
        raise NotEnoughMemory(
            f"the engine needs {need / GIB:.1f} GiB (weights {weights / GIB:.1f}, rollout.engine.kv_cache_gib="
            f"{engine.kv_cache_gib:g}) but {free / GIB:.1f} GiB are free: lower rollout.engine.kv_cache_gib"
        )
