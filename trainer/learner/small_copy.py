"""A small copy of an architecture: the same layers in kind and wiring, few of them, with random weights.

Guarantees: one layer of each kind that the configuration names is among those that stay; where the longest sequence
of a run goes beyond a window or a rotary embedding's first length, a sequence of BEYOND tokens goes beyond the copy's.
Not guaranteed: that every architecture can be made smaller; what transformers raises then is the caller's to report.
"""

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

BEYOND = 12
"""Tokens."""
VOCABULARY = 64

_WINDOW = 4
_UNLIMITED = 2**20
_LAYERS = 2
_WIDTH = re.compile(r"intermediate_size|ffn_dim|n_inner")
_WINDOWS = re.compile(r"window(?!_layers)|attention_chunk_size")
_EVERY = re.compile(r"period|interval|pattern|_step$|dense_replace|offset")
"""Entries after so many layers of which another kind comes."""


def small_config(config: PreTrainedConfig, longest: int | None) -> PreTrainedConfig:
    """`longest`: tokens of the longest sequence that will be trained on; None: any."""
    entries = config.to_dict()
    depth = config.attribute_map.get("num_hidden_layers", "num_hidden_layers")
    layers: int = entries[depth]
    kept = _layers(entries, layers)
    small = {name: _smaller(name, value, layers, kept, longest) for name, value in entries.items()}
    small |= {depth: kept, config.attribute_map.get("vocab_size", "vocab_size"): VOCABULARY}
    # Rows of length 1 and up: a token that pads would have no gradient.
    small["pad_token_id"] = None if entries.get("pad_token_id") is None else VOCABULARY - 1
    if _grows(entries) and (longest is None or longest > entries["max_position_embeddings"]):
        small["max_position_embeddings"] = _WINDOW
    return type(config).from_dict(small)


def random_model(config: PreTrainedConfig, *, attention: str) -> PreTrainedModel:
    """float32, in evaluation mode; equal for equal `config`. Logits differ by about 1 from token to token, so that a
    wrong one is seen."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(
            config, attn_implementation=attention, dtype=torch.float32
        )
        with torch.no_grad():
            for parameter in model.parameters():
                _randomise(parameter)
    return model.eval()


def _randomise(parameter: nn.Parameter) -> None:
    if parameter.ndim >= 2:
        parameter.normal_(std=parameter.shape[-1] ** -0.5)
    else:
        # Gains and biases: about what the architecture begins with.
        parameter.add_(torch.randn_like(parameter), alpha=0.1)


def _layers(entries: dict[str, Any], layers: int) -> int:
    """How many of the first layers hold every kind."""
    needed = _LAYERS
    for name, value in entries.items():
        if isinstance(value, int) and _EVERY.search(name):
            needed = max(needed, value + 1)
        if isinstance(value, (list, tuple)) and 1 < len(value) <= layers and len(set(map(str, value))) > 1:
            seen = list(map(str, value))
            needed = max(needed, 1 + max(map(seen.index, set(seen))))
    return min(needed, layers)


def _smaller(name: str, value: Any, layers: int, kept: int, longest: int | None) -> Any:
    if isinstance(value, dict):
        return {key: _smaller(key, part, layers, kept, longest) for key, part in value.items()}
    if isinstance(value, (list, tuple)) and len(value) == layers:
        return list(value)[:kept]
    if isinstance(value, bool) or not isinstance(value, (int, list)):
        return value
    if name.endswith("_token_id"):
        return [1] if isinstance(value, list) else 1
    if isinstance(value, list):
        return value
    if _WINDOWS.search(name) or name == "original_max_position_embeddings":
        return _WINDOW if longest is None or longest > value else _UNLIMITED
    return min(value, _limit(name))


def _limit(name: str) -> int:
    if _WIDTH.search(name):
        return 64
    if "per_tok" in name:
        return 2
    if "experts" in name:
        return 4
    return _UNLIMITED


def _grows(entries: dict[str, Any]) -> bool:
    """Whether the rotary embedding's frequencies change with the length of what is forwarded, from the model's own
    length on."""
    rope = entries.get("rope_parameters") or {}
    kinds: Sequence[Any] = (rope, *rope.values())
    return any(isinstance(kind, dict) and kind.get("rope_type") == "dynamic" for kind in kinds)
