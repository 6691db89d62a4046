"""A causal language model that answers with log-probabilities of completion tokens instead of logits."""

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
)

from conf.errors import first_line
from trainer.learner.attention import flash, prefix
from trainer.learner.errors import PolicyNotLoadable
from trainer.learner.logits import logits_of
from trainer.learner.logprobs import token_logprobs
from trainer.learner.packing.batch import PackedBatch

Packing = Literal["padded", "shared_prefix"]

_NOISE = re.compile("drop|jitter")
"""Names of attributes by which modules of transformers keep a share that is dropped or a noise's width."""


class Policy(nn.Module):
    """Forward: one packed batch -> (log-probability [T], entropy [T]) of its completion tokens, float32, nats."""

    def __init__(self, model: PreTrainedModel, *, temperature: float, chunk: int) -> None:
        """`temperature`: what sampling divides the logits by. `chunk`: tokens whose logits exist at a time.

        Raises PolicyNotLoadable when the output layer has a bias.
        """
        super().__init__()
        head = model.get_output_embeddings()
        if not isinstance(head, nn.Linear) or head.bias is not None:
            raise PolicyNotLoadable(f"the output layer of a {type(model).__name__} is not a linear map without bias")
        self.language_model = model
        self._made = logits_of(model.config)
        self._temperature = temperature
        self._chunk = chunk

    def forward(self, batch: PackedBatch) -> tuple[torch.Tensor, torch.Tensor]:
        keywords: dict[str, Any] = {}
        # Rows of one sequence have the positions that every architecture counts by itself, and some take no others.
        if batch.layout is not None:
            keywords["position_ids"] = batch.position_ids
            if self.language_model.config._attn_implementation == flash.NAME:
                keywords["prefix_row"] = flash.row_of(batch.layout, batch.input_ids.device)
            else:
                keywords["prefix_layout"] = batch.layout
        output = self.language_model.base_model(input_ids=batch.input_ids, use_cache=False, **keywords)
        hidden = output.last_hidden_state.flatten(0, 1).index_select(0, batch.predict)
        weight = self.language_model.get_output_embeddings().weight
        settings: dict[str, Any] = {"temperature": self._temperature, "chunk": self._chunk, "made": self._made}
        logp, entropy = token_logprobs(hidden, weight, batch.targets, **settings)
        if batch.source is None:
            return logp, entropy
        return logp.index_select(0, batch.source), entropy.index_select(0, batch.source)


def load_model(path: str, *, packing: Packing, device: str, dtype: torch.dtype) -> PreTrainedModel:
    """The model of a Hugging Face folder, ready for batches of `packing`, without dropout. Raises PolicyNotLoadable."""
    folder = Path(path)
    config = load_config(folder)
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            attn_implementation=attention_name(packing, device, config),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, StrictDataclassError) as error:
        raise PolicyNotLoadable(f"cannot load the model at {path}: {error}") from error
    refuse_missing(found["missing_keys"], model, path)
    without_noise(model)
    return model


def refuse_missing(missing: Collection[str], model: PreTrainedModel, path: str) -> None:
    """transformers makes up what a folder lacks. Raises PolicyNotLoadable."""
    if missing:
        kind = type(model).__name__
        raise PolicyNotLoadable(f"the weights at {path} lack {len(missing)} tensors of a {kind}, first {min(missing)}")


def load_config(folder: Path) -> PreTrainedConfig:
    """Raises PolicyNotLoadable."""
    if not (folder / "config.json").is_file():
        raise PolicyNotLoadable(f"no model at {folder}: the folder has no config.json")
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        reason = first_line(error, otherwise=type(error).__name__)
        raise PolicyNotLoadable(f"cannot read the config.json at {folder}: {reason}") from error
    return config


def attention_name(packing: Packing, device: str, config: PreTrainedConfig) -> str:
    """The registered attention that serves a packing of the model of `config` on a device ("cpu" or "cuda")."""
    if packing == "shared_prefix":
        return prefix.NAME if device == "cpu" else flash.NAME
    # torch's own attention knows no cap of the scores (Gemma 2), and transformers gives it none; some classes, those
    # without any attention among them, refuse to be given it.
    capped = config.to_dict().get("attn_logit_softcapping") is not None
    kind = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    return "eager" if capped or kind is None or not kind._supports_sdpa else "sdpa"


def without_noise(model: nn.Module) -> None:
    """Switches dropout and jitter off, in place: what is trained is the distribution that was sampled from."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if isinstance(value, float) and _NOISE.search(name):
                setattr(module, name, 0.0)
