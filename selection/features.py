"""What a reranker sees of a candidate: how it stands among the other candidates, and how it meets the question.

Every feature can be computed without the gold answer. Those that need an input which is absent are 0.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from rewards.sql.parse import lex
from selection.candidate import Candidate, Context

NAMES = (
    "vote share of its result",
    "vote share among telling results",
    "its result leads",
    "result is trivial",
    "did not run",
    "agreement on all instances",
    "question words in the query",
    "query words in the question",
    "string literals in the question",
    "atomic similarity to the others",
    "log-probability against the mean",
    "length against the mean",
)
STOP = frozenset(
    "a an the of in on for to and or is are was were be by with that which who what how many much do does did have has "
    "from at as it its their there list show give find me all each per".split()
)
COMPARED = 12
"""Different queries, the most frequent first, whose atomic similarities are looked at."""


def features(candidates: Sequence[Candidate], context: Context) -> np.ndarray:
    """One row a candidate, one column a name, shape (candidates, len(NAMES)); float64."""
    n = len(candidates)
    votes = Counter(c.digest for c in candidates if not c.failed)
    telling = Counter(c.digest for c in candidates if not c.failed and not c.trivial)
    instances = Counter(context.instance_digests.get(c.index) for c in candidates if not c.failed)
    lead = max(votes.values(), default=0)
    asked = _words(f"{context.question} {context.evidence}")
    texts = {c.sql: _reading(c.sql, asked, f"{context.question} {context.evidence}".lower()) for c in candidates}
    alike = _likeness(candidates, context)
    logprobs = _standardised([c.logprob for c in candidates])
    lengths = _standardised([float(len(c.sql)) for c in candidates])
    return np.array(
        [
            [
                votes[c.digest] / n if not c.failed else 0.0,
                telling[c.digest] / max(1, telling.total()) if not c.failed else 0.0,
                float(not c.failed and votes[c.digest] == lead),
                float(c.trivial),
                float(c.failed),
                instances[context.instance_digests.get(c.index)] / n
                if context.instance_digests and not c.failed
                else 0.0,
                *texts[c.sql],
                alike[c.sql],
                logprobs[i],
                lengths[i],
            ]
            for i, c in enumerate(candidates)
        ]
    )


def _words(text: str) -> frozenset[str]:
    """Lower-case words and numbers, underscores split, plural s removed, without the commonest."""
    words = re.findall(r"[^\W_]+", text.lower())
    return frozenset(word.removesuffix("s") if len(word) > 3 else word for word in words if word not in STOP)


def _reading(sql: str, asked: frozenset[str], question: str) -> tuple[float, float, float]:
    """Shares: question words that the query names, query words that the question holds, literals found in the
    question.
    """
    tokens = lex(sql) or []
    named = _words(" ".join(t.text for t in tokens if t.kind in ("word", "quoted", "string", "number")))
    literals = [t.text.strip("'\"").lower() for t in tokens if t.kind == "string"]
    common = len(asked & named)
    found = sum(literal in question for literal in literals)
    return common / max(1, len(asked)), common / max(1, len(named)), found / len(literals) if literals else 1.0


def _likeness(candidates: Sequence[Candidate], context: Context) -> Mapping[str, float]:
    """Mean atomic similarity of each query to the candidates with another text, weighted by their number."""
    counts = Counter(c.sql for c in candidates)
    if context.similarity is None:
        return dict.fromkeys(counts, 0.0)
    # Ties are broken by text, so that the order of the candidates does not matter.
    frequent = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:COMPARED]
    scores = {}
    for sql in counts:
        others = [(other, count) for other, count in frequent if other != sql]
        total = sum(count for _, count in others)
        shared = sum(count * context.similarity(*sorted((sql, other))) for other, count in others)
        scores[sql] = shared / total if total else 1.0
    return scores


def _standardised(values: Sequence[float | None]) -> np.ndarray:
    """(value - mean) / deviation among the candidates; 0 where values are absent or all equal."""
    if any(value is None for value in values):
        return np.zeros(len(values))
    numbers = np.array(values, dtype=np.float64)
    deviation = numbers.std()
    return (numbers - numbers.mean()) / deviation if deviation > 0 else np.zeros(len(values))
