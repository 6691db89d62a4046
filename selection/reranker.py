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
from selection.candidate import NOTHING, Candidate, Context, NoCandidates, preference
from selection.features import NAMES, features

FORMAT = 1


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
        partial = file.with_name(file.name + ".part")
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        partial.replace(file)


def load_reranker(file: str, asked: frozenset[str]) -> Reranker:
    """The reranker of a file, for questions on the databases `asked`. Raises RerankerUnusable."""
    try:
        content = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise RerankerUnusable(
            f"reranker={file}: a file written by selection.train_reranker expected ({error})"
        ) from error
    if content.get("format") != FORMAT or content.get("features") != list(NAMES):
        raise RerankerUnusable(f"reranker={file} was trained on other features: train it again")
    known = sorted(asked & set(content["databases"]))
    if known:
        raise RerankerUnusable(f"reranker={file} was trained on databases that are asked about: {', '.join(known[:5])}")
    return Reranker(
        weights=tuple(content["weights"]),
        means=tuple(content["means"]),
        deviations=tuple(content["deviations"]),
        databases=tuple(content["databases"]),
        questions=content["questions"],
    )
