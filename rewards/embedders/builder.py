"""From a configuration to an embedder."""

from collections.abc import Callable
from typing import Any

from conf.schema.reward import HashingEmbedder as HashingSettings
from conf.schema.reward import SentenceTransformersEmbedder as SentenceTransformersSettings
from conf.schema.reward import VllmEmbedder as VllmSettings
from rewards.embedders.base import Embedder
from rewards.embedders.hashing import HashingEmbedder
from rewards.embedders.sentence_transformers import SentenceTransformersEmbedder
from rewards.embedders.vllm import VllmEmbedder

EMBEDDERS: dict[str, Callable[[Any], Embedder]] = {
    "hashing": lambda settings: HashingEmbedder(settings.dimensions),
    "sentence_transformers": SentenceTransformersEmbedder,
    "vllm": VllmEmbedder,
}


def build_embedder(settings: HashingSettings | SentenceTransformersSettings | VllmSettings) -> Embedder:
    """Raises EmbedderUnavailable."""
    return EMBEDDERS[settings.type](settings)
