"""The memory component: does wrong reasoning at least read like reasoning that led others to right answers?

1 for a right answer. Otherwise, for reasoning longer than a limit, the cosine between its embedding and the centroid of
the 20 nearest verified traces from other databases, in [0, 1]; 0 where there is none (FINER-SQL, arXiv 2605.03465).
With `keep_failed`, by how much the centroid of the nearest failed traces is nearer is deducted. With `needs_execution`
it is 0 where the answer does not run, with `copy_overlap` where the reasoning is a near-verbatim copy of those traces.

Scoring never changes the store: what a batch verifies waits until `remember`, so scores depend neither on order nor on
the rest of the batch. Traces pass the published quality gate first, with column names from the real schema.
"""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from conf.schema.reward import MemoryReward
from rewards.carriers import SqlTask
from rewards.components.copies import is_copy
from rewards.embedders.base import Embedder, Vectors
from rewards.embedders.builder import build_embedder
from rewards.memory_store import Neighbourhood, TraceQuery, TraceStore, VerifiedTrace
from rewards.sql.schema import read_schema

_WORD = re.compile(r"[^\W_]+")

Phrases = dict[str, tuple[tuple[int, ...], frozenset[tuple[str, ...]]]]
"""Column names as words, by first word, with their lengths, longest first: a place in a text costs one look-up a
length, however many columns begin alike."""
NO_PHRASES: tuple[tuple[int, ...], frozenset[tuple[str, ...]]] = ((), frozenset())


class MemoryComponent:
    """Reads `config.store` where one is named, and never writes it. Raises MemoryStoreInvalid, EmbedderUnavailable."""

    def __init__(self, config: MemoryReward, embedder: Embedder | None = None) -> None:
        self._config = config
        self._store = TraceStore(embedder or build_embedder(config.embedder), duplicate_cosine=config.duplicate_cosine)
        self._pending: dict[VerifiedTrace, None] = {}
        if config.store is not None:
            self._store.load(config.store)

    def __len__(self) -> int:
        """Verified traces in the store."""
        return len(self._store)

    def score(
        self,
        task: SqlTask,
        reasonings: Sequence[str],
        right: Sequence[bool | None],
        *,
        runs: Sequence[bool] | None = None,
    ) -> list[float]:
        """One value in [0, 1] for each completion of a task. `right` None: nobody knows, so it is no trace of either
        kind. `runs`: whether its answer was executed without an error (None: all were). Raises DatabaseUnreadable."""
        paid = [True] * len(reasonings) if runs is None or not self._config.needs_execution else runs
        for reasoning, correct in zip(reasonings, right, strict=True):
            kept = correct or (correct is False and self._config.keep_failed)
            if correct is not None and kept and self._worth_keeping(task, reasoning):
                self._pending[
                    VerifiedTrace(task_id=task.id, db_id=task.db_id, reasoning=reasoning, correct=correct)
                ] = None
        asked = sorted(
            {
                reasoning
                for reasoning, correct, pays in zip(reasonings, right, paid, strict=True)
                if not correct and pays and len(reasoning) > self._config.min_reasoning_chars
            }
        )
        aligned = dict(zip(asked, self._alignments(task, asked), strict=True))
        return [
            1.0 if ok else aligned.get(text, 0.0) if pays else 0.0
            for text, ok, pays in zip(reasonings, right, paid, strict=True)
        ]

    def take_verified(self) -> list[VerifiedTrace]:
        """Traces since the last call that passed the gate; the store does not hold them yet."""
        taken = sorted(self._pending, key=lambda t: (t.task_id, t.reasoning, t.db_id, t.correct))
        self._pending.clear()
        return taken

    def remember(self, traces: Sequence[VerifiedTrace]) -> int:
        """Adds traces that are no near-duplicates; the number of verified ones afterwards. Raises IndexUnavailable."""
        self._store.add(traces)
        return len(self)

    def held(self, traces: Sequence[VerifiedTrace]) -> list[VerifiedTrace]:
        """Those of the traces that the store holds, in their order; near-duplicates of others it does not."""
        return [trace for trace in traces if trace in self._store]

    def save(self, path: str | Path) -> None:
        """Writes the store to a file, which appears whole or not at all."""
        self._store.save(path)

    def load(self, path: str | Path) -> None:
        """Replaces the store by a file's, and forgets what waits. Raises MemoryStoreInvalid."""
        self._store.load(path)
        self._pending.clear()

    def _alignments(self, task: SqlTask, reasonings: Sequence[str]) -> list[float]:
        if not reasonings or not len(self._store):
            return [0.0] * len(reasonings)
        vectors = self._store.embed(reasonings)
        nearest = self._nearest(task, vectors, correct=True)
        verified = [
            0.0 if self._copied(text, found) else _cosine(vector, found)
            for text, vector, found in zip(reasonings, vectors, nearest, strict=True)
        ]
        if not self._config.keep_failed:
            return verified
        failed = map(_cosine, vectors, self._nearest(task, vectors, correct=False))
        return [max(0.0, good - max(0.0, bad - good)) for good, bad in zip(verified, failed, strict=True)]

    def _copied(self, reasoning: str, found: Neighbourhood | None) -> bool:
        share = self._config.copy_overlap
        return share is not None and found is not None and is_copy(reasoning, found.reasonings, share)

    def _nearest(self, task: SqlTask, vectors: Vectors, *, correct: bool) -> list[Neighbourhood | None]:
        query = TraceQuery(
            task_id=task.id,
            db_id=task.db_id,
            vectors=vectors,
            same_database=self._config.same_database,
            correct=correct,
        )
        return self._store.nearest(query, self._config.neighbours)

    def _worth_keeping(self, task: SqlTask, reasoning: str) -> bool:
        config = self._config
        words = reasoning.split()
        if not config.min_words <= len(words) <= config.max_words:
            return False
        mentions = column_mentions(reasoning, _phrases(task.databases[0]))
        if mentions < config.min_column_mentions or mentions / len(words) < config.min_column_density:
            return False
        return bigram_ratio(words) >= config.min_bigram_ratio


def column_mentions(reasoning: str, phrases: Phrases) -> int:
    """How often a column is named, as `first_name` or as "first name"; the longest name at each place counts once."""
    words = _WORD.findall(reasoning.lower())
    count = position = 0
    while position < len(words):
        lengths, known = phrases.get(words[position], NO_PHRASES)
        for length in lengths:
            if tuple(words[position : position + length]) in known:
                count += 1
                position += length - 1
                break
        position += 1
    return count


def bigram_ratio(words: Sequence[str]) -> float:
    """Distinct word pairs over all word pairs; 1 for fewer than two words."""
    pairs = [(a.lower(), b.lower()) for a, b in zip(words, words[1:], strict=False)]
    return len(set(pairs)) / len(pairs) if pairs else 1.0


@lru_cache(maxsize=512)
def _phrases(database: str) -> Phrases:
    return column_phrases(column.name for table in read_schema(database).tables for column in table.columns)


def column_phrases(names: Iterable[str]) -> Phrases:
    """Column names in the shape that column_mentions takes."""
    found: dict[str, set[tuple[str, ...]]] = {}
    for name in names:
        words = tuple(_WORD.findall(name.lower()))
        if words:
            found.setdefault(words[0], set()).add(words)
    return {
        first: (tuple(sorted({len(phrase) for phrase in phrases}, reverse=True)), frozenset(phrases))
        for first, phrases in found.items()
    }


def _cosine(vector: NDArray[np.float32], found: Neighbourhood | None) -> float:
    """Cosine to the centroid in [0, 1], rounded so that the last bits of a sum do not show; 0 without neighbours."""
    if found is None:
        return 0.0
    centroid = found.centroid
    scale = float(np.linalg.norm(vector.astype(np.float64)) * np.linalg.norm(centroid))
    if scale == 0.0:
        return 0.0
    return min(1.0, max(0.0, round(float(vector.astype(np.float64) @ centroid) / scale, 6)))
