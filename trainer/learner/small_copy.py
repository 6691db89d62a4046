"""A small copy of an architecture: the same layers in kind and wiring, few of them, with random weights.

Guarantees: one layer of each kind that the configuration names is among those that stay; where the longest sequence
of a run goes beyond a window or a rotary embedding's first length, a sequence of BEYOND tokens goes beyond the copy's.
Not guaranteed: that every architecture can be made smaller; what transformers raises then is the caller's to report.
"""

import re
from collections.abc import Iterator
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
_NARROW = 256
_WIDTH = re.compile(r"intermediate_size|ffn_dim|n_inner")
_WINDOWS = re.compile(r"window(?!_layers|_pattern)|attention_chunk_size")
"""Lengths in tokens: how many layers have a window, and which, is no length."""
_EVERY = re.compile(r"period|interval|pattern|_step$|dense_replace|offset")
"""Entries after so many layers of which another kind comes."""


def small_config(config: PreTrainedConfig, longest: int | None, *, narrow: bool) -> PreTrainedConfig:
    """`longest`: tokens of the longest sequence that will be trained on; None: any. `narrow`: with fewer heads of
    attention and hidden features too, which not every architecture can be built with."""
    entries = config.to_dict()
    depth = config.attribute_map.get("num_hidden_layers", "num_hidden_layers")
    layers: int = entries[depth]
    kept = _layers(entries, layers)
    small: dict[str, Any] = {name: _smaller(name, value, layers, kept) for name, value in entries.items()}
    small = _shorter(small, _rope_types(entries), longest)
    small |= {depth: kept, config.attribute_map.get("vocab_size", "vocab_size"): VOCABULARY}
    # Rows of length 1 and up: a token that pads would have no gradient.
    small["pad_token_id"] = None if entries.get("pad_token_id") is None else VOCABULARY - 1
    return type(config).from_dict(small | _narrower(config, entries) if narrow else small)


def built(config: PreTrainedConfig, *, attention: str) -> PreTrainedModel:
    """float32, in evaluation mode; the same weights each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(
            config, attn_implementation=attention, dtype=torch.float32, trust_remote_code=False
        )
    return model.eval()


def randomise(model: nn.Module) -> None:
    """In place, and always the same: logits differ by about 1 from token to token, so that a wrong one is seen."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        for parameter in model.parameters():
            _randomise(parameter)


def randomise_adapters(model: nn.Module) -> None:
    """As `randomise`, of adapters alone, which begin by changing nothing."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        for parameter in model.parameters():
            if parameter.requires_grad:
                _randomise(parameter)


def _randomise(parameter: nn.Parameter) -> None:
    if parameter.ndim >= 2:
        parameter.normal_(std=parameter.shape[-1] ** -0.5)
    else:
        # Gains and biases: about what the architecture begins with.
        parameter.add_(torch.randn_like(parameter), alpha=0.1)


def _narrower(config: PreTrainedConfig, entries: dict[str, Any]) -> dict[str, Any]:
    """Two heads of keys, each of as many query heads, two at most; as many hidden features for each head as there
    are."""
    names = ("hidden_size", "num_attention_heads", "num_key_value_heads")
    width, heads, keys = (config.attribute_map.get(name, name) for name in names)
    if not {width, heads} <= entries.keys() or entries[width] <= _NARROW:
        return {}
    all_keys = entries.get(keys) or entries[heads]
    kept_keys = min(all_keys, 2)
    kept = kept_keys * min(entries[heads] // all_keys, 2)
    found = {width: kept * (entries[width] // entries[heads]), heads: kept}
    return found | {keys: kept_keys} if keys in entries else found


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


def _smaller(name: str, value: Any, layers: int, kept: int) -> Any:
    if isinstance(value, dict):
        return {key: _smaller(key, part, layers, kept) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        ids = [1] if name.endswith("_token_id") else list(value)
        # Not the factors of a rotary embedding, of which there are as many as frequencies.
        return ids[:kept] if len(ids) == layers and not name.endswith("_factor") else ids
    if isinstance(value, bool) or not isinstance(value, int):
        return value
    return 1 if name.endswith("_token_id") else min(value, _limit(name))


def _shorter(entries: dict[str, Any], ropes: set[str], longest: int | None) -> dict[str, Any]:
    """With windows, and lengths from which on a rotary embedding changes, that BEYOND tokens go beyond if `longest`
    goes beyond what is there, and that nothing goes beyond otherwise."""
    changed: dict[str, Any] = {}
    for name, value in entries.items():
        if isinstance(value, dict):
            changed[name] = _shorter(value, ropes, longest)
        elif isinstance(value, int) and not isinstance(value, bool) and value > 0 and _limits(name, ropes):
            reached = longest is None or longest > value
            changed[name] = (_WINDOW if _WINDOWS.search(name) else BEYOND) if reached else _UNLIMITED
    return entries | changed


def reach(config: PreTrainedConfig) -> int | None:
    """Tokens up to which no sequence goes beyond a window or its rotary embedding's first length; None: any."""
    entries = config.to_dict()
    found = list(_reaches(entries, _rope_types(entries)))
    return min(found) if found else None


def _reaches(entries: dict[str, Any], ropes: set[str]) -> Iterator[int]:
    for name, value in entries.items():
        if isinstance(value, dict):
            yield from _reaches(value, ropes)
        elif isinstance(value, int) and not isinstance(value, bool) and value > 0 and _limits(name, ropes):
            yield value


def _limits(name: str, ropes: set[str]) -> bool:
    """Whether an entry says how far a token sees, or how long a sequence may be under the usual frequencies."""
    grows = {"dynamic": "max_position_embeddings", "longrope": "original_max_position_embeddings"}
    return bool(_WINDOWS.search(name)) or name in {grows[kind] for kind in ropes & grows.keys()}


def _limit(name: str) -> int:
    if _WIDTH.search(name):
        return 64
    if name.startswith("vocab_size"):
        return VOCABULARY
    if "per_tok" in name:
        return 2
    if "experts" in name:
        return 4
    return _UNLIMITED


def _rope_types(entries: dict[str, Any]) -> set[str]:
    rope = entries.get("rope_parameters") or {}
    return {kind["rope_type"] for kind in (rope, *rope.values()) if isinstance(kind, dict) and "rope_type" in kind}
