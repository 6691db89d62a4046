"""Any sentence-transformers model. Imports the package when it is built, and not before."""

from collections.abc import Sequence

import numpy as np

from conf.schema.reward import SentenceTransformersEmbedder as Settings
from rewards.embedders.base import EmbedderUnavailable, Vectors, unit_rows


class SentenceTransformersEmbedder:
    """Raises EmbedderUnavailable where the package or the model is missing."""

    def __init__(self, settings: Settings) -> None:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise EmbedderUnavailable(
                f"reward.memory.embedder.type=sentence_transformers needs the package sentence-transformers ({error}); "
                "install it, or use the type hashing"
            ) from error
        try:
            self._model = SentenceTransformer(settings.model, device=settings.device)
        except (OSError, ValueError) as error:
            raise EmbedderUnavailable(f"the embedding model {settings.model!r} cannot be loaded: {error}") from error
        self._settings = settings
        self._dimensions = self._rows(["dimension"]).shape[1]

    @property
    def name(self) -> str:
        return f"sentence-transformers-{self._settings.model}"

    @property
    def dimensions(self) -> int:
        return self._dimensions

    def embed(self, texts: Sequence[str]) -> Vectors:
        return self._rows(texts) if texts else np.zeros((0, self._dimensions), dtype=np.float32)

    def _rows(self, texts: Sequence[str]) -> Vectors:
        vectors = self._model.encode(
            list(texts), batch_size=self._settings.batch_size, convert_to_numpy=True, show_progress_bar=False
        )
        return unit_rows(np.asarray(vectors, dtype=np.float32))
