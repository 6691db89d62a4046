"""An embedding model in vLLM. Imports vLLM when it is built, and not before."""

from collections.abc import Sequence

import numpy as np

from conf.schema.reward import VllmEmbedder as Settings
from rewards.embedders.base import EmbedderUnavailable, Vectors, unit_rows


class VllmEmbedder:
    """Raises EmbedderUnavailable where vLLM or the model is missing."""

    def __init__(self, settings: Settings) -> None:
        try:
            from vllm import LLM
        except ImportError as error:
            raise EmbedderUnavailable("reward.memory.embedder.type=vllm needs vLLM; use the type hashing") from error
        try:
            self._model = LLM(model=settings.model, runner="pooling", convert="embed")
        except (OSError, ValueError, RuntimeError) as error:
            raise EmbedderUnavailable(f"the embedding model {settings.model!r} cannot be loaded: {error}") from error
        self._settings = settings
        self._dimensions = len(self._rows(["dimension"])[0])

    @property
    def name(self) -> str:
        return f"vllm-{self._settings.model}"

    @property
    def dimensions(self) -> int:
        return self._dimensions

    def embed(self, texts: Sequence[str]) -> Vectors:
        if not texts:
            return np.zeros((0, self._dimensions), dtype=np.float32)
        return unit_rows(np.asarray(self._rows(texts), dtype=np.float32))

    def _rows(self, texts: Sequence[str]) -> list[list[float]]:
        """Texts longer than the model's context are cut at its end."""
        longest = self._model.model_config.max_model_len
        outputs = self._model.embed(
            list(texts), use_tqdm=False, tokenization_kwargs={"truncation": True, "max_length": longest}
        )
        return [output.outputs.embedding for output in outputs]
