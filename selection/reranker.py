"""A small learned voter: a logistic model over features of the candidate set, kept in one JSON file. Off by default.

The file names the databases that it was trained on; it refuses to answer for any of them, so that no score is ever
reported on training data by accident.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from conf.errors import QuorumError
from conf.output import replace_text
from rewards.cases import load_json
from selection.candidate import NOTHING, Candidate, Context, NoCandidates, preference
from selection.features import NAMES, features

FORMAT = 1
LARGEST, LEAST_DEVIATION = 1e9, 1e-100
"""Within these bounds every score is a finite number."""


class RerankerUnusable(QuorumError):
    """The file is missing, of another make, or was trained on the databases at hand."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reranker:
    """weights . (features - means) / deviations: the log-odds of being right, up to a constant."""

    weights: tuple[float, ...]
    means: tuple[float, ...]
    deviations: tuple[float, ...]
    databases: tuple[str, ...]
    """Databases of the training questions."""
    questions: int
    """Number of training questions."""

    def scores(self, candidates: Sequence[Candidate], context: Context) -> np.ndarray:
        """Shape (candidates,)."""
        standard = (features(candidates, context) - np.array(self.means)) / np.array(self.deviations)
        return standard @ np.array(self.weights)

    def select(self, candidates: Sequence[Candidate], context: Context = NOTHING) -> int:
        """Index of the chosen candidate. Raises NoCandidates when there is none."""
        if not candidates:
            raise NoCandidates("there is no candidate to choose from")
        scored = zip(candidates, self.scores(candidates, context), strict=True)
        return min(scored, key=lambda pair: (-round(float(pair[1]), 9), preference(pair[0])))[0].index

    def save(self, file: Path) -> None:
        """Writes the JSON file; the name appears by rename."""
        content = {"format": FORMAT, "features": NAMES} | asdict(self)
        replace_text(file, json.dumps(content, indent=1) + "\n")


def load_reranker(file: str, asked: frozenset[str]) -> Reranker:
    """The reranker of a file, for questions on the databases `asked`. Raises RerankerUnusable."""
    try:
        content = load_json(Path(file).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise RerankerUnusable(
            f"reranker={file}: a file written by benchmarks.study.train_reranker expected ({error})"
        ) from error
    if not isinstance(content, dict):
        raise RerankerUnusable(f"reranker={file}: a file written by benchmarks.study.train_reranker expected")
    if content.get("format") != FORMAT or content.get("features") != list(NAMES):
        raise RerankerUnusable(f"reranker={file} was trained on other features: train it again")
    databases, questions = content.get("databases"), content.get("questions")
    if not isinstance(databases, list) or not isinstance(questions, int):
        raise RerankerUnusable(f"reranker={file} does not say what it was trained on: train it again")
    known = sorted(asked & set(map(str, databases)))
    if known:
        raise RerankerUnusable(f"reranker={file} was trained on databases that are asked about: {', '.join(known[:5])}")
    columns = {name: _column(content.get(name)) for name in ("weights", "means", "deviations")}
    weights, means, deviations = columns.values()
    if weights is None or means is None or deviations is None or min(deviations) < LEAST_DEVIATION:
        raise RerankerUnusable(
            f"reranker={file}: {len(NAMES)} numbers expected under each of {', '.join(columns)}: train it again"
        )
    return Reranker(
        weights=weights,
        means=means,
        deviations=deviations,
        databases=tuple(map(str, databases)),
        questions=questions,
    )


def _column(values: object) -> tuple[float, ...] | None:
    """One number a feature, or None where they are not there."""
    if not isinstance(values, list) or len(values) != len(NAMES):
        return None
    if any(isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > LARGEST for value in values):
        return None
    return tuple(map(float, values))
