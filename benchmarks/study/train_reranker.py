"""python -m benchmarks.study.train_reranker: fits the reranker on executed candidates of the training split.

  candidates=FILE          candidates for training questions, as for benchmarks.study
  data=spider|bird data.root=DIR   the training questions, where the file does not hold them
  output=FILE              receives the reranker

Each question weighs the same, split between its right and its wrong candidates; questions whose candidates are all
right or all wrong teach nothing and are left out.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.optimize import minimize

from benchmarks.study.ballots import Ballot, ballots
from benchmarks.study.candidates import CandidatesUnusable, read_candidates
from conf.cli import run_entrypoint
from conf.output import new_output, refuse_existing
from conf.schema.selection import RerankerTraining
from conf.terminal import visible
from selection.features import features
from selection.reranker import Reranker


def fit(polls: Sequence[Ballot], l2: float) -> Reranker:
    """The reranker that minimises the weighted logistic loss. Raises CandidatesUnusable when nothing can be learned."""
    tables, labels, weights = [], [], []
    used = 0
    for ballot in polls:
        right = np.array([float(c.index in ballot.right) for c in ballot.candidates])
        if not 0 < right.sum() < len(right):
            continue
        used += 1
        tables.append(features(ballot.candidates, ballot.context))
        labels.append(right)
        weights.append(np.where(right > 0, 0.5 / right.sum(), 0.5 / (len(right) - right.sum())))
    if not used:
        raise CandidatesUnusable("no question has both right and wrong candidates: there is nothing to learn")
    x, y, w = np.concatenate(tables), np.concatenate(labels), np.concatenate(weights)
    means, deviations = x.mean(axis=0), x.std(axis=0)
    deviations[deviations == 0] = 1.0
    found = _minimise((x - means) / deviations, y, w / used, l2 / used)
    return Reranker(
        weights=tuple(map(float, found)),
        means=tuple(map(float, means)),
        deviations=tuple(map(float, deviations)),
        databases=tuple(sorted({ballot.db_id for ballot in polls})),
        questions=used,
    )


def _minimise(x: np.ndarray, y: np.ndarray, w: np.ndarray, l2: float) -> np.ndarray:
    """Weights of the features; the intercept is fitted, not penalised and dropped: it moves all candidates alike."""
    signs = 2 * y - 1

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        margins = signs * (x @ parameters[1:] + parameters[0])
        slopes = -w * signs / (1 + np.exp(np.clip(margins, -500, 500)))
        value = float(w @ np.logaddexp(0, -margins) + l2 / 2 * parameters[1:] @ parameters[1:])
        return value, np.concatenate([[slopes.sum()], x.T @ slopes + l2 * parameters[1:]])

    return minimize(loss, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B").x[1:]


def job(config: RerankerTraining) -> int:
    """Trains one reranker. Raises CandidatesUnusable and OutputTaken."""
    output = Path(config.output)
    refuse_existing("output", output)
    new_output(str(output.parent))
    polls = list(ballots(read_candidates(config), config))
    reranker = fit(polls, config.l2)
    reranker.save(output)
    sys.stdout.write(f"trained on {reranker.questions} of {len(polls)} questions: {visible(str(output))}\n")
    return 0


if __name__ == "__main__":
    sys.exit(run_entrypoint(RerankerTraining, "selection_train", job, __doc__ or "", sys.argv[1:]))
