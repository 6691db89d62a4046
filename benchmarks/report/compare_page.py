"""The page of a comparison: leaderboard, paired differences, and the questions on which runs disagree."""

from html import escape
from pathlib import Path

from benchmarks.comparison import Comparison, Pair
from benchmarks.folder import write_whole
from benchmarks.report.parts import bars, page, table

MOST_SHOWN = 60
"""Disagreements shown for each pair of runs."""


def write_comparison(file: Path, result: Comparison) -> None:
    """One self-contained page. Raises BenchmarkError."""
    names = [run.name for run in result.runs]
    board = [(name, _interval(result, name)) for name in names]
    body = "\n".join(
        (
            f"<h1>{escape(result.conclusion)}</h1>",
            f'<p class="lead">{escape(str(result.runs[0].scores["data"]))}, {escape(result.metric)}, '
            f"{len(result.keys)} questions</p>",
            f"<h2>Leaderboard</h2>{bars(board)}",
            f"<h2>By level</h2>{_levels(result)}",
            f"<h2>Paired differences</h2>{_pairs(result)}",
            *(_disagreements(result, pair) for pair in result.pairs),
        )
    )
    write_whole(file, page(f"Comparison of {len(names)} runs", body))


def _interval(result: Comparison, name: str) -> dict[str, float]:
    mean, low, high = result.means[name]
    return {"mean": mean, "low": low, "high": high}


def _levels(result: Comparison) -> str:
    levels = list(result.runs[0].scores["by_level"])
    field = "hardness" if result.runs[0].scores["benchmark"] == "spider" else "difficulty"
    rows = []
    for run in result.runs:
        cells = []
        for level in levels:
            keys = [key for key in result.keys if (run.verdicts[key][field] or "unknown") == level]
            values = run.values(result.metric, keys)
            cells.append(f"{100 * sum(values) / len(values):.1f}" if values else "–")
        rows.append([escape(run.name), *cells])
    return table(["", *map(escape, levels)], rows)


def _pairs(result: Comparison) -> str:
    return table(Pair.COLUMNS, [[escape(cell) for cell in pair.cells] for pair in result.pairs])


def _disagreements(result: Comparison, pair: Pair) -> str:
    runs = {run.name: run for run in result.runs}
    first, second = runs[pair.first], runs[pair.second]
    keys = [k for k in result.keys if first.verdicts[k][result.metric] != second.verdicts[k][result.metric]]
    cards = []
    for key in keys[:MOST_SHOWN]:
        a, b = first.verdicts[key], second.verdicts[key]
        sides = "".join(
            f'<div><h4>{escape(run)} <span class="tag {"good" if v[result.metric] else "bad"}">'
            f"{escape(result.metric)} {v[result.metric]}</span></h4><pre>{escape(v['sql'] or '(no SQL)')}</pre></div>"
            for run, v in ((pair.first, a), (pair.second, b))
        )
        cards.append(
            f'<article><h3>{escape(a["question"])}</h3><div class="tags"><span class="tag">#{key}</span>'
            f'<span class="tag">{escape(a["db_id"])}</span></div><div class="sides">{sides}</div></article>'
        )
    more = f'<p class="soft">{len(keys) - MOST_SHOWN} more</p>' if len(keys) > MOST_SHOWN else ""
    title = f"{len(keys)} disagreements: {pair.first} and {pair.second}"
    return f'<details class="apart"><summary><b>{escape(title)}</b></summary>{"".join(cards)}{more}</details>'
