"""report.html of one benchmark run: scores, curves, voters, errors, and a browser of wrong answers."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from benchmarks.carriers import Judged
from benchmarks.folder import write_whole
from benchmarks.report.parts import bars, interval_text, line_chart, options, page, percent, table, tile
from benchmarks.report.script import JS

NAMES = {
    "exec": "execution match",
    "exact": "exact set match",
    "exec_keep_distinct": "execution match, DISTINCT kept",
    "exec_corrected": "execution match, script's bugs corrected",
    "ex": "execution accuracy (EX)",
    "ex_corrected": "EX, script's bugs corrected",
    "soft_f1": "Soft-F1",
    "soft_f1_unordered": "Soft-F1, any row order",
    "ves": "VES",
    "r_ves": "R-VES",
}


def write_report(file: Path, summary: Mapping[str, Any], judged: Sequence[Judged], metrics: Sequence[str]) -> None:
    """One self-contained page."""
    title = f"{summary['data']}: {percent(_mean(summary['totals'][metrics[0]]))} {NAMES[metrics[0]]}"
    failures = [_failure(j, metrics) for j in judged if j.exhibit]
    body = "\n".join(
        (
            f"<h1>{escape(title)}</h1>",
            f'<p class="lead">{escape(_lead(summary))}</p>',
            _tiles(summary, metrics),
            "<h2>By level</h2>" + _levels(summary, metrics),
            _sampling(summary),
            _databases(judged, metrics[0]),
            _browser(failures),
        )
    )
    write_whole(file, page(title, body, script=JS))


def _mean(interval: Mapping[str, float] | None) -> float | None:
    return interval["mean"] if interval else None


def _lead(summary: Mapping[str, Any]) -> str:
    n, seconds = summary["n"], summary["seconds"]["score"]
    voting = f"{n} candidates a question, selection {summary['selection']}" if n > 1 else "one answer each"
    parts = [f"{summary['questions']} questions", f"answers from {summary['source']}", voting]
    if summary["limit"]:
        parts.append("only the first questions of the set, so no benchmark number")
    tokens = summary["tokens"]
    if any(tokens.values()):
        made = f"{summary['seconds']['generate']:.0f} s of generation"
        parts.append(f"{made}, {tokens['prompt']:,} prompt and {tokens['completion']:,} completion tokens")
    if summary["requests"]:
        parts.append(f"{summary['requests']:,} requests")
    return "; ".join([*parts, f"{seconds:.1f} s of scoring"])


def _tiles(summary: Mapping[str, Any], metrics: Sequence[str]) -> str:
    tiles = [tile(NAMES[m], percent(_mean(summary["totals"][m])), interval_text(summary["totals"][m])) for m in metrics]
    if summary["n"] > 1:
        tiles.append(tile(f"recall@{summary['n']}", percent(summary["recall_at"][-1])))
        tiles.append(tile("mean@n", percent(_mean(summary["mean_at_n"])), interval_text(summary["mean_at_n"])))
    if summary["greedy"]:
        tiles.append(tile("greedy", percent(_mean(summary["greedy"])), interval_text(summary["greedy"])))
    if summary["unscorable"]:
        tiles.append(tile("could not be scored", str(summary["unscorable"]), "left out of every mean"))
    if summary["incomplete"]:
        note = "left out of recall, pass, mean@n and voters"
        tiles.append(tile("questions that lost answers", str(summary["incomplete"]), note))
    if summary["gold_errors"]:
        tiles.append(tile("gold queries failed", str(len(summary["gold_errors"])), "counted as wrong"))
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _levels(summary: Mapping[str, Any], metrics: Sequence[str]) -> str:
    parts = {"all": summary["totals"], **summary["by_level"]}
    rows = [
        [name, str(part["questions"]), *(percent(_mean(part[metric])) for metric in metrics)]
        for name, part in parts.items()
    ]
    return table(["", "questions", *(NAMES[m] for m in metrics)], rows)


def _sampling(summary: Mapping[str, Any]) -> str:
    parts = []
    if summary["n"] > 1:
        curves = {"recall@k, first k": summary["recall_at"], "pass@k, any k": summary["pass_at"]}
        voters = sorted(summary["voters"].items(), key=lambda item: -(_mean(item[1]) or 0))
        parts.append(f"<div><h2>More candidates</h2>{line_chart(curves, 'recall and pass against k')}</div>")
        parts.append(f"<div><h2>Voters</h2>{bars(voters)}</div>")
    if summary["error_kinds"]:
        rows = [[kind, str(count)] for kind, count in summary["error_kinds"].items()]
        parts.append(f"<div><h2>Candidates that did not run</h2>{table(['kind', 'candidates'], rows)}</div>")
    return f'<div class="columns">{"".join(parts)}</div>' if parts else ""


def _databases(judged: Sequence[Judged], metric: str) -> str:
    scored = [j for j in judged if not j.unscorable]
    totals = Counter(j.verdict["db_id"] for j in scored)
    right = Counter(j.verdict["db_id"] for j in scored if j.verdict[metric])
    rows = sorted(((name, right[name] / total, total) for name, total in totals.items()), key=lambda row: row[1])
    return (
        '<details class="apart"><summary><b>By database</b></summary>'
        + table(["", "questions", "right"], [[n, str(t), percent(r)] for n, r, t in rows])
        + "</details>"
    )


def _failure(judged: Judged, metrics: Sequence[str]) -> dict[str, Any]:
    verdict = judged.verdict
    marks = [[f"{metric} {verdict[metric]}", _kind(verdict[metric])] for metric in metrics[1:]]
    if len(judged.rights) > 1:
        share = f"{sum(judged.rights)} of {len(judged.rights)} candidates right"
        marks.append([share, "good" if any(judged.rights) else "bad"])
    if judged.gold_error:
        marks.append(["gold failed", "bad"])
    key = verdict.get("index", verdict.get("question_id"))
    shown = {"key": key, "db_id": verdict["db_id"], "level": judged.level, "sql": verdict["sql"], "marks": marks}
    return shown | judged.exhibit


def _kind(value: float | None) -> str:
    """Colour of a metric's mark: full marks, none, or neither."""
    return "good" if value == 1 else "bad" if value == 0 else ""


def _browser(failures: Sequence[Mapping[str, Any]]) -> str:
    levels = sorted({failure["level"] for failure in failures})
    databases = sorted({failure["db_id"] for failure in failures})
    # Inside a JSON text "<" stands in strings alone, so no string can end the element.
    data = json.dumps(failures, ensure_ascii=False).replace("<", "\\u003c")
    return (
        '<h2>Wrong answers</h2><div class="filters">'
        f'<select id="db" aria-label="database">{options(databases, "every database")}</select>'
        f'<select id="level" aria-label="level">{options(levels, "every level")}</select>'
        '<select id="kind" aria-label="kind"><option value="">errors and wrong results</option>'
        '<option value="error">did not run</option><option value="wrong">wrong result</option></select>'
        '<input id="words" type="search" placeholder="search questions and SQL" aria-label="search">'
        '<span id="count" class="soft"></span></div>'
        '<div id="list"></div><button id="more" hidden></button>'
        f'<script type="application/json" id="failures">{data}</script>'
    )
