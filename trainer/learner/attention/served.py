"""What the attentions over shared-prefix rows do not compute, refused where a model asks for it.

transformers hands an attention whatever an architecture has: an entry that is ignored makes wrong numbers.
"""

from collections.abc import Mapping
from typing import Any

import torch

from trainer.learner.errors import LearnerError
from trainer.learner.packing.batch import PrefixLayout

_UNSERVED = {
    "softcap": "a cap on its scores",
    "s_aux": "sinks",
    "position_bias": "biases by position (ALiBi)",
    "attention_bias": "biases of its scores",
    "cache": "a cache",
}


def refuse_unserved(
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    layout: PrefixLayout | None,
    keywords: Mapping[str, Any],
) -> None:
    """Raises LearnerError. `keywords`: what the model gives its attention beside queries, keys, values and scaling."""
    if layout is None:
        raise LearnerError("its layers hand their attention no keywords, by which it would know the row's prompts")
    asked = [name for keyword, name in _UNSERVED.items() if keywords.get(keyword) is not None]
    window = keywords.get("sliding_window")
    if window is not None and window < layout.longest:
        asked.append("a sliding window that sequences go beyond")
    if key.shape[-1] != value.shape[-1]:
        asked.append("keys and values of different widths")
    if attention_mask is not None:
        asked.append("a mask of its own")
    if keywords.get("dropout"):
        asked.append("dropout")
    if keywords.get("is_causal") is False:
        asked.append("sight of later tokens")
    if asked:
        raise LearnerError(
            f"its attention has {' and '.join(asked)}, which rows of learner.packing=shared_prefix do not serve"
        )
