"""What the attentions over shared-prefix rows do not compute, refused where a model asks for it.

transformers hands an attention whatever an architecture has: an entry that is ignored makes wrong numbers.
"""

from collections.abc import Mapping
from typing import Any

from trainer.learner.errors import LearnerError
from trainer.learner.packing.batch import PrefixLayout

_UNSERVED = ("softcap", "s_aux", "position_bias", "attention_bias", "cache")
"""Caps of the scores, sinks, biases of positions (ALiBi), and keys of earlier passes."""


def refuse_unserved(attention_mask: Any, layout: PrefixLayout, keywords: Mapping[str, Any]) -> None:
    """Raises LearnerError. `keywords`: what the model gives its attention beside queries, keys, values and scaling."""
    asked = [name for name in _UNSERVED if keywords.get(name) is not None]
    if attention_mask is not None:
        asked.append("attention_mask")
    if keywords.get("dropout"):
        asked.append("dropout")
    if keywords.get("is_causal") is False:
        asked.append("is_causal=False")
    window = keywords.get("sliding_window")
    if window is not None and window < layout.longest:
        asked.append(f"sliding_window={window} in a sequence of {layout.longest} tokens")
    if asked:
        raise LearnerError(
            f"learner.packing=shared_prefix does not serve attention with {', '.join(asked)}: choose padded"
        )
