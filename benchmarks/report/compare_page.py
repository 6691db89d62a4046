"""The page of a comparison: leaderboard, paired differences, and the questions on which runs disagree."""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from benchmarks.carriers import BenchmarkError
from benchmarks.comparison import Comparison, Pair
from benchmarks.folder import write_whole
from benchmarks.report.parts import bars, page, table, tag

TITLE = "Comparison of"
MARK_WITHIN = 1000
"""Bytes at the beginning of a page, among which its title is."""
MOST_SHOWN = 60
"""Disagreements shown for each pair of runs."""


def refuse_other_file(file: Path) -> None:
    """Raises BenchmarkError when `file` is there and is no page of a comparison."""
    if not file.exists():
        return
    if not file.is_file():  # a device or a pipe has no beginning to look at, and is nothing to replace
        raise BenchmarkError(f"output={file} is no file: choose another output=FILE")
    try:
        with file.open("rb") as stream:
            begin = stream.read(MARK_WITHIN)
    except OSError as error:
        raise BenchmarkError(f"output={file} cannot be written: {error.strerror}") from error
    # A run's own files may hold the words, in a question for instance.
    if not begin.lower().startswith(b"<!doctype html") or TITLE.encode() not in begin:
        raise BenchmarkError(f"output={file} is no page of a comparison: choose another output=FILE, or remove it")


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
    write_whole(file, page(f"{TITLE} {len(names)} runs", body))


def _interval(result: Comparison, name: str) -> dict[str, float]:
    mean, low, high = result.means[name]
    return {"mean": mean, "low": low, "high": high}


def _levels(result: Comparison) -> str:
    levels = list(result.runs[0].scores["by_level"])
    rows = []
    for run in result.runs:
        cells = []
        for level in levels:
            keys = [key for key in result.keys if (run.verdicts[key][run.level] or "unknown") == level]
            values = run.values(result.metric, keys)
            cells.append(f"{100 * sum(values) / len(values):.1f}" if values else "–")
        rows.append([run.name, *cells])
    return table(["", *levels], rows)


def _pairs(result: Comparison) -> str:
    return table(Pair.COLUMNS, [pair.cells for pair in result.pairs])


def _disagreements(result: Comparison, pair: Pair) -> str:
    runs = {run.name: run for run in result.runs}
    first, second = runs[pair.first], runs[pair.second]
    keys = [k for k in result.keys if first.verdicts[k][result.metric] != second.verdicts[k][result.metric]]
    cards = []
    for key in keys[:MOST_SHOWN]:
        a, b = first.verdicts[key], second.verdicts[key]
        sides = _side(pair.first, a, result.metric) + _side(pair.second, b, result.metric)
        cards.append(
            f"<article><h3>{escape(a['question'])}</h3>"
            f'<div class="tags">{tag(f"#{a[first.key]}")}{tag(a["db_id"])}</div>'
            f'<div class="sides">{sides}</div></article>'
        )
    more = f'<p class="soft">{len(keys) - MOST_SHOWN} more</p>' if len(keys) > MOST_SHOWN else ""
    title = f"{len(keys)} disagreements: {pair.first} and {pair.second}"
    return f'<details class="apart"><summary><b>{escape(title)}</b></summary>{"".join(cards)}{more}</details>'


def _side(run: str, verdict: Mapping[str, Any], metric: str) -> str:
    mark = tag(f"{metric} {verdict[metric]}", "good" if verdict[metric] else "bad")
    return f"<div><h4>{escape(run)} {mark}</h4><pre>{escape(verdict['sql'] or '(no SQL)')}</pre></div>"
