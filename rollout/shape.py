"""The shape of a model without its weights: from its config.json, from the settings, or by its published name."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conf.errors import QuorumError
from conf.schema.model import ModelConfig


class ShapeUnknown(QuorumError):
    """Neither a folder nor a known name: nothing can be estimated."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelShape:
    """A decoder with grouped attention and a gated MLP (Qwen2, Llama)."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    """Input and output embeddings are one matrix."""
    biases: bool
    """Query, key and value projections have biases (Qwen2)."""

    @property
    def parameters(self) -> int:
        """Trained numbers, each counted once."""
        query, key = self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = 2 * self.hidden * query + 2 * self.hidden * key + (query + 2 * key if self.biases else 0)
        layer = attention + 3 * self.hidden * self.intermediate + 2 * self.hidden
        embeddings = self.vocabulary * self.hidden * (1 if self.tied else 2)
        return embeddings + self.layers * layer + self.hidden

    def adapter_parameters(self, rank: int) -> int:
        """Numbers of LoRA adapters on every linear map of the layers: rank x (inputs + outputs) each."""
        query, key = self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = 2 * (self.hidden + query) + 2 * (self.hidden + key)
        return self.layers * rank * (attention + 3 * (self.hidden + self.intermediate))


def _qwen(hidden: int, intermediate: int, layers: int, heads: int, kv_heads: int, *, tied: bool = True) -> ModelShape:
    return ModelShape(
        hidden=hidden,
        intermediate=intermediate,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=hidden // heads,
        vocabulary=151936 if tied else 152064,
        tied=tied,
        biases=True,
    )


PUBLISHED = {
    "Qwen/Qwen2.5-Coder-0.5B-Instruct": _qwen(896, 4864, 24, 14, 2),
    "Qwen/Qwen2.5-Coder-1.5B-Instruct": _qwen(1536, 8960, 28, 12, 2),
    "Qwen/Qwen2.5-Coder-3B-Instruct": _qwen(2048, 11008, 36, 16, 2),
    "Qwen/Qwen2.5-Coder-7B-Instruct": _qwen(3584, 18944, 28, 28, 4, tied=False),
}
"""From the published config.json files, for planning where the weights are not at hand."""


def shape_of(model: ModelConfig) -> ModelShape:
    """Raises ShapeUnknown."""
    if model.type == "tiny":
        return ModelShape(
            hidden=model.hidden_size,
            intermediate=model.intermediate_size,
            layers=model.layers,
            heads=model.heads,
            kv_heads=model.kv_heads,
            head_dim=model.hidden_size // model.heads,
            vocabulary=model.vocabulary,
            tied=True,
            biases=True,
        )
    file = Path(model.path) / "config.json"
    if file.is_file():
        try:
            return from_config(json.loads(file.read_text(encoding="utf-8")))
        except (KeyError, ValueError) as error:
            raise ShapeUnknown(f"{file} does not describe a decoder that can be planned: {error!r}") from error
    if model.path in PUBLISHED:
        return PUBLISHED[model.path]
    raise ShapeUnknown(f"model.path={model.path} is no folder here, and its shape is not known: {', '.join(PUBLISHED)}")


def from_config(config: Mapping[str, Any]) -> ModelShape:
    """From config.json. Raises KeyError for a model of another kind."""
    heads = config["num_attention_heads"]
    return ModelShape(
        hidden=config["hidden_size"],
        intermediate=config["intermediate_size"],
        layers=config["num_hidden_layers"],
        heads=heads,
        kv_heads=config.get("num_key_value_heads", heads),
        head_dim=config.get("head_dim") or config["hidden_size"] // heads,
        vocabulary=config["vocab_size"],
        tied=config.get("tie_word_embeddings", False),
        biases=config.get("attention_bias", config.get("model_type") == "qwen2"),
    )


def to_config(shape: ModelShape) -> dict[str, Any]:
    """The entries of a Qwen2's config.json that say its shape; `from_config` reads them back."""
    return {
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "tie_word_embeddings": shape.tied,
    }
