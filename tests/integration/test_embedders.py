"""The embedders that need a model, on tiny ones with random weights made here."""

import gc
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

from conf.schema.reward import MemoryReward, SentenceTransformersEmbedder, VllmEmbedder
from rewards.carriers import SqlTask
from rewards.components.memory import MemoryComponent
from rewards.embedders.base import Embedder, EmbedderUnavailable
from rewards.embedders.builder import build_embedder
from rewards.memory_store import VerifiedTrace

pytestmark = pytest.mark.integration

DIMENSIONS = 64
"""One head of 64: the smallest that vLLM computes on a CPU."""
TEXTS = ["the table of dogs has names", "rows are grouped by age", ""]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny encoder that reads letters."""
    folder = tmp_path_factory.mktemp("bert")
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=128).save_pretrained(folder)
    torch.manual_seed(0)
    shape = BertConfig(
        vocab_size=len(words),
        hidden_size=DIMENSIONS,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=32,
        max_position_embeddings=128,
        initializer_range=0.5,  # with the usual 0.02 all texts look alike
    )
    BertModel(shape).save_pretrained(folder)
    return folder


def check(embedder: Embedder) -> None:
    """Rows of length 1, one a text, that tell texts apart and serve the memory."""
    vectors = embedder.embed([*TEXTS, "dogs " * 5000])
    assert (vectors.shape, vectors.dtype, embedder.dimensions) == ((4, DIMENSIONS), np.float32, DIMENSIONS)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(4), abs=1e-4)
    assert embedder.embed([]).shape == (0, DIMENSIONS)
    assert embedder.embed(TEXTS[:1])[0] == pytest.approx(vectors[0], abs=1e-4)
    assert float(vectors[0] @ vectors[1]) < 0.9999

    memory = MemoryComponent(MemoryReward(), embedder)
    memory.remember([VerifiedTrace(task_id="other", db_id="cats", reasoning=TEXTS[0])])
    asked = SqlTask(id="t", db_id="dogs", question="?", gold_sqls=("SELECT 1",), databases=("none.sqlite",))
    longer = f"{TEXTS[1]} and the groups are counted"
    expected = float(embedder.embed([longer])[0] @ vectors[0])
    assert memory.score(asked, [longer], [False]) == [pytest.approx(max(0.0, expected), abs=1e-4)]


def test_sentence_transformers(bert: Path) -> None:
    pytest.importorskip("sentence_transformers")
    check(build_embedder(SentenceTransformersEmbedder(model=str(bert))))


def test_sentence_transformers_without_its_model(tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers")
    with pytest.raises(EmbedderUnavailable, match="cannot be loaded"):
        build_embedder(SentenceTransformersEmbedder(model=str(tmp_path / "nothing")))


def test_vllm(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("vllm")
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    check(build_embedder(VllmEmbedder(model=str(bert))))
    gc.collect()
