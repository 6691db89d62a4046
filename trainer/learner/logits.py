"""What an architecture does with the products of its output layer before they are logits.

Guarantees nothing for an architecture that is not in the table: its logits are taken to be the products, and
`exactness.py` finds out where they are not.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Logits:
    """logits = factor * products, or cap * tanh(factor * products / cap)."""

    factor: float = 1.0
    cap: float | None = None


PRODUCTS = Logits()
"""Where logits are the products themselves."""


def logits_of(config: PreTrainedConfig) -> Logits:
    """Of the language model that `config` describes."""
    build = _LOGITS.get(config.model_type)
    return PRODUCTS if build is None else build(config.to_dict())


def _capped(entry: str) -> Callable[[dict[str, Any]], Logits]:
    return lambda config: Logits(cap=config[entry])


def _divided(entry: str) -> Callable[[dict[str, Any]], Logits]:
    return lambda config: Logits(factor=1.0 / config[entry])


def _multiplied(entry: str) -> Callable[[dict[str, Any]], Logits]:
    return lambda config: Logits(factor=config[entry])


_LOGITS: dict[str, Callable[[dict[str, Any]], Logits]] = {
    "cohere": _multiplied("logit_scale"),
    "cohere2": _multiplied("logit_scale"),
    "cohere2_moe": _multiplied("logit_scale"),
    "falcon_h1": _multiplied("lm_head_multiplier"),
    "gemma2": _capped("final_logit_softcapping"),
    "gemma3_text": _capped("final_logit_softcapping"),
    "gemma3n_text": _capped("final_logit_softcapping"),
    "gemma4_text": _capped("final_logit_softcapping"),
    "granite": _divided("logits_scaling"),
    "granite_swa": _divided("logits_scaling"),
    "granitemoe": _divided("logits_scaling"),
    "granitemoe_swa": _divided("logits_scaling"),
    "granitemoehybrid": _divided("logits_scaling"),
    "granitemoeshared": _divided("logits_scaling"),
    "hyperclovax": _multiplied("logits_scaling"),
    "minicpm3": lambda config: Logits(factor=config["dim_model_base"] / config["hidden_size"]),
    "nanochat": _capped("final_logit_softcapping"),
    "recurrent_gemma": _capped("logits_soft_cap"),
    "vaultgemma": _capped("final_logit_softcapping"),
}
"""By config.model_type, from the forward of each architecture's causal language model in transformers."""
