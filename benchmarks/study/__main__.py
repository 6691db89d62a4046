"""python -m benchmarks.study: all voters side by side for n = 1..30 candidates, with intervals, as table and plot.

  candidates=FILE          candidates.jsonl of a benchmark run, or JSON lines {"index" or "question_id",
                           "candidates": [..], "logprobs": [..]}; [FILE,FILE] pools the answers of several models
  data=spider|bird data.root=DIR   the questions, where the file does not hold them; split=heldout|train
  reranker=FILE            studies a trained reranker too
  output=DIR               receives study.json and study.html

For each n every voter sees the same n candidates, the first n of one random order of all. Intervals are Wilson's,
95 %, over questions.
"""

import json
import random
import re
import sys
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
import plotly.graph_objects as go

from benchmarks.study.ballots import Ballot, ballots
from benchmarks.study.candidates import CandidatesUnusable, read_candidates
from conf.cli import run_entrypoint
from conf.output import new_output
from conf.pages import content_policy
from conf.schema.selection import StudyConfig
from conf.terminal import aligned, visible
from records.statistics.intervals import share_interval
from selection.candidate import Voter
from selection.reranker import load_reranker
from selection.voters import NEEDS_LOGPROBS, VOTERS

SCRIPT = re.compile(r"<script[^>]*>(.*?)</script>", re.DOTALL)
PRINTED = (1, 2, 5, 10, 20, 30)
Curves = dict[str, np.ndarray]
"""Voter -> share of right answers, shape (n, 3): mean, low, high."""


def study(polls: Sequence[Ballot], voters: Mapping[str, Voter], n: int, seed: int) -> Curves:
    """Accuracy of each voter for 1..n candidates; the oracle's is recall@n."""
    right = {name: np.zeros((n, len(polls))) for name in voters}
    draw = random.Random(seed)
    for column, ballot in enumerate(polls):
        order = draw.sample(ballot.candidates, len(ballot.candidates))
        for k in range(1, n + 1):
            seen = order[:k]
            for name, vote in voters.items():
                right[name][k - 1, column] = vote(seen, ballot.context) in ballot.right
    return {
        name: np.array([share_interval(float(share), len(polls)) for share in table.mean(axis=1)])
        for name, table in right.items()
    }


def chosen_voters(polls: Sequence[Ballot], reranker: str | None) -> dict[str, Voter]:
    """The voters whose inputs are there. Raises RerankerUnusable for a reranker that knows these databases."""
    informed = all(c.logprob is not None for ballot in polls for c in ballot.candidates)
    names = [name for name in VOTERS if name != "greedy" and (informed or name not in NEEDS_LOGPROBS)]
    voters = {name: VOTERS[name] for name in names}
    if reranker is not None:
        voters["reranker"] = load_reranker(reranker, frozenset(ballot.db_id for ballot in polls)).select
    return voters


def _plot(curves: Curves, title: str) -> str:
    figure = go.Figure()
    for name, curve in sorted(curves.items(), key=lambda item: -item[1][-1, 0]):
        k = list(range(1, len(curve) + 1))
        mean, low, high = (100 * curve).T
        figure.add_trace(
            go.Scatter(
                x=k,
                y=mean,
                name="oracle (recall@n)" if name == "oracle" else name,
                mode="lines",
                error_y={"type": "data", "array": high - mean, "arrayminus": mean - low, "thickness": 0.6, "width": 0},
            )
        )
    figure.update_layout(
        title=title,
        xaxis_title="candidates",
        yaxis_title="right answers, %",
        template="plotly_white",
        height=640,
        legend={"orientation": "h", "y": -0.15},
        margin={"l": 50, "r": 12},
    )
    return figure.to_html(include_plotlyjs=True, full_html=False, config={"responsive": True, "displayModeBar": False})


def _rows(curves: Curves, counts: Sequence[int]) -> list[list[str]]:
    ranked = sorted(curves.items(), key=lambda item: -item[1][-1, 0])
    return [
        [name, *(f"{100 * c[k - 1, 0]:.1f} [{100 * c[k - 1, 1]:.1f}, {100 * c[k - 1, 2]:.1f}]" for k in counts)]
        for name, c in ranked
    ]


def _page(curves: Curves, counts: Sequence[int], title: str) -> str:
    head = "".join(f"<th>n = {k}</th>" for k in counts)
    rows = _rows(curves, counts)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    plot = _plot(curves, escape(title))
    style = (
        "body{font:15px system-ui,sans-serif;margin:0 auto;max-width:1100px;padding:16px}"
        "div.t{overflow-x:auto}td,th{padding:4px 12px 4px 0;text-align:left;border-bottom:1px solid #ddd}"
        "td{white-space:nowrap}"
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"{content_policy(SCRIPT.findall(plot))}"
        f"<title>{escape(title)}</title><style>{style}</style></head><body>{plot}"
        f'<div class="t"><table><tr><th></th>{head}</tr>{body}</table></div></body></html>\n'
    )


def job(config: StudyConfig) -> int:
    """Runs one study. Raises CandidatesUnusable, RerankerUnusable and OutputTaken."""
    output = new_output(config.output, "study.json", "study.html")
    sampled = read_candidates(config)
    polls = list(ballots(sampled, config))
    if not polls:
        raise CandidatesUnusable("nothing to study: no question's gold query runs, or each lost a candidate")
    n = min(config.n, min(len(ballot.candidates) for ballot in polls))
    curves = study(polls, chosen_voters(polls, config.reranker), n, config.seed)
    counts = [k for k in PRINTED if k < n] + [n]
    left_out = f" ({len(sampled) - len(polls)} left out)" if len(polls) < len(sampled) else ""
    title = f"{len(polls)} questions{left_out}, {', '.join(config.files)}"
    values = {name: [[round(float(x), 6) for x in row] for row in curve] for name, curve in curves.items()}
    (output / "study.json").write_text(json.dumps({"questions": len(polls), "curves": values}) + "\n", encoding="utf-8")
    (output / "study.html").write_text(_page(curves, counts, title), encoding="utf-8")
    rows = [["", *(f"n={k}" for k in counts)], *_rows(curves, counts)]
    lines = [visible(title), *aligned(rows), visible(str(output / "study.html"))]
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return 0


if __name__ == "__main__":
    sys.exit(run_entrypoint(StudyConfig, "selection_study", job, __doc__ or "", sys.argv[1:]))
