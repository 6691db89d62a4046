"""Where the warm-up starts from: a tiny Qwen2 with random weights, or a Hugging Face folder. Imports torch."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from conf.errors import QuorumError, first_line
from conf.schema.model import PretrainedModel, TinyModel
from rollout.shape import shape_of, to_config
from trainer.learner.policy import attention_name, refuse_missing


def tiny_policy(model: TinyModel, tokenizer: PreTrainedTokenizerBase, seed: int) -> PreTrainedModel:
    """A Qwen2 with tied embeddings, in fp32; the same seed gives the same weights."""
    config = Qwen2Config(
        **to_config(replace(shape_of(model), vocabulary=len(tokenizer))),
        max_position_embeddings=model.max_positions,
        # Unit-variance activations from the start: the usual 0.02 suits wide models and makes one this narrow learn to
        # copy values several times later.
        initializer_range=model.hidden_size**-0.5,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(seed)
    return Qwen2ForCausalLM(config)


def pretrained_policy(model: PretrainedModel, seed: int, dtype: torch.dtype) -> PreTrainedModel:
    """The folder's weights, or random ones of its shape. Raises QuorumError."""
    try:
        config = AutoConfig.from_pretrained(model.path, revision=model.revision, trust_remote_code=False)
        settings: dict[str, Any] = {"dtype": dtype, "trust_remote_code": False}
        settings["attn_implementation"] = attention_name("padded", "cpu", config)
        if model.random_weights:
            torch.manual_seed(seed)
            return AutoModelForCausalLM.from_config(config, **settings)
        loaded, found = AutoModelForCausalLM.from_pretrained(
            model.path, revision=model.revision, use_safetensors=True, output_loading_info=True, **settings
        )
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, StrictDataclassError) as error:
        reason = first_line(error, otherwise="no model")
        raise QuorumError(f"model.path={model.path}: no model can be loaded: {reason}") from error
    refuse_missing(found["missing_keys"], loaded, model.path)
    policy: PreTrainedModel = loaded
    return policy


def base_folder(model: PretrainedModel) -> Path:
    """The folder with a model's configuration files, downloaded where need be. Raises QuorumError."""
    if Path(model.path).is_dir():
        return Path(model.path)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model.path, revision=model.revision, allow_patterns="*.json"))
    except (OSError, ValueError) as error:  # huggingface_hub's errors are of these kinds
        reason = first_line(error, otherwise=type(error).__name__)
        raise QuorumError(f"model.path={model.path}: its files cannot be downloaded: {reason}") from error
