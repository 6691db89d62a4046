"""A causal language model that answers with log-probabilities of completion tokens instead of logits."""

from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from trainer.learner.attention import flash, prefix
from trainer.learner.errors import PolicyNotLoadable
from trainer.learner.logprobs import token_logprobs
from trainer.learner.packing.batch import PackedBatch

Packing = Literal["padded", "shared_prefix"]


class Policy(nn.Module):
    """Forward: one packed batch -> (log-probability [T], entropy [T]) of its completion tokens, float32, nats."""

    def __init__(self, model: PreTrainedModel, *, temperature: float, chunk: int) -> None:
        """`temperature`: what sampling divides the logits by. `chunk`: tokens whose logits exist at a time.

        Raises PolicyNotLoadable when the output layer has a bias.
        """
        super().__init__()
        head = model.get_output_embeddings()
        if not isinstance(head, nn.Linear) or head.bias is not None:
            raise PolicyNotLoadable(f"{type(model).__name__} has an output layer that is not a linear map without bias")
        self.language_model = model
        self._temperature = temperature
        self._chunk = chunk

    def forward(self, batch: PackedBatch) -> tuple[torch.Tensor, torch.Tensor]:
        keywords: dict[str, Any] = {}
        if batch.layout is not None:
            if self.language_model.config._attn_implementation == flash.NAME:
                keywords["prefix_row"] = flash.row_of(batch.layout, batch.input_ids.device)
            else:
                keywords["prefix_layout"] = batch.layout
        output = self.language_model.base_model(
            input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False, **keywords
        )
        hidden = output.last_hidden_state.flatten(0, 1).index_select(0, batch.predict)
        weight = self.language_model.get_output_embeddings().weight
        logp, entropy = token_logprobs(hidden, weight, batch.targets, temperature=self._temperature, chunk=self._chunk)
        if batch.source is None:
            return logp, entropy
        return logp.index_select(0, batch.source), entropy.index_select(0, batch.source)


def load_model(path: str, *, packing: Packing, device: str, dtype: torch.dtype) -> PreTrainedModel:
    """The model of a Hugging Face folder, ready for batches of `packing`. Raises PolicyNotLoadable."""
    folder = Path(path)
    if not (folder / "config.json").is_file():
        raise PolicyNotLoadable(f"no model at {path}: the folder has no config.json")
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            attn_implementation=attention_name(packing, device),
            local_files_only=True,
            use_safetensors=True,
        )
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, StrictDataclassError) as error:
        raise PolicyNotLoadable(f"cannot load the model at {path}: {error}") from error
    return model


def attention_name(packing: Packing, device: str) -> str:
    """The registered attention that serves a packing on a device ("cpu" or "cuda")."""
    if packing == "padded":
        return "sdpa"
    return prefix.NAME if device == "cpu" else flash.NAME


def uses_sliding_window(path: str) -> bool:
    """Whether any layer's attention is windowed, which shared-prefix rows do not serve."""
    config = AutoConfig.from_pretrained(path, local_files_only=True)
    return "sliding_attention" in (config.to_dict().get("layer_types") or ())
