"""The atomic component: how much of what the gold query does, the predicted query does too.

Guarantees: 1 for a query and itself; unchanged under alias names, letter case of identifiers and keywords, order of AND
and OR terms, sides of a comparison, order of inner joins, redundant parentheses and needless qualification; below 1 for
every other difference that the exact forms show. Deterministic, bounded in time by parse.py's limits. Does not
know equivalences beyond these (EXISTS for IN, a subquery for a join), nor what the data would make equal.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from rewards.components.atomic_operations import Profile, similarity
from rewards.components.atomic_query import read_profile
from rewards.components.atomic_scope import Relation, schema_relations
from rewards.sql.cache import BoundedCache
from rewards.sql.identifiers import fold
from rewards.sql.marks import SQLITE_SPACE
from rewards.sql.parse import MAX_CHARS, MAX_TOKENS, ParseFailure, canonical, lex
from rewards.sql.schema import DatabaseSchema

CACHED_PROFILES = 256
"""Profiles of golds kept for each database."""


@dataclass(frozen=True, slots=True)
class AtomicScore:
    similarity: float
    """In [0, 1]; 1 only where the queries mean the same."""
    token_fallback: bool
    """One of the two could not be parsed: the similarity is that of their tokens."""


class AtomicComparer:
    """Compares queries on one database. Not thread-safe."""

    def __init__(self, schema: DatabaseSchema) -> None:
        self._relations: Mapping[str, Relation] = schema_relations(schema)
        self._golds: BoundedCache[str, _Read] = BoundedCache(CACHED_PROFILES)
        self._predicted = _Read(sql="", profile=None)
        """The one compared last: a query is compared with all golds in a row."""

    def similarity(self, gold: str, predicted: str) -> AtomicScore:
        """Similarity of a predicted query to one gold; symmetric. Never raises for what a query says."""
        known = self._golds.get(gold)
        if known is None:
            known = self._read(gold)
            if len(gold) <= MAX_CHARS:
                self._golds.put(gold, known)
        if self._predicted.sql != predicted:
            self._predicted = self._read(predicted)
        left, right = known.profile, self._predicted.profile
        if left is None or right is None:
            return AtomicScore(token_similarity(gold, predicted), True)
        return AtomicScore(similarity(left, right), False)

    def _read(self, sql: str) -> "_Read":
        try:
            return _Read(sql=sql, profile=read_profile(sql, self._relations))
        except ParseFailure:
            return _Read(sql=sql, profile=None)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Read:
    sql: str
    profile: Profile | None
    """None where the query could not be parsed."""


def token_similarity(left: str, right: str) -> float:
    """Jaccard index of the bags of tokens and token pairs; 1 if and only if the canonical texts are equal.

    Only the first MAX_CHARS characters and MAX_TOKENS tokens count.
    """
    if canonical(left) == canonical(right):
        return 1.0
    ours, theirs = _token_bag(left), _token_bag(right)
    shared, union = (ours & theirs).total(), (ours | theirs).total()
    return shared / (union + 1)  # the texts differ, also where the bags do not


def _token_bag(sql: str) -> Counter[str]:
    text = sql[:MAX_CHARS].strip(SQLITE_SPACE)
    lexed = lex(text)
    tokens = text.split() if lexed is None else [t.text for t in lexed]
    tokens = [fold(token) for token in tokens[:MAX_TOKENS]]
    bag = Counter(tokens)
    bag.update(f"{a} {b}" for a, b in zip(tokens, tokens[1:], strict=False))
    return bag
