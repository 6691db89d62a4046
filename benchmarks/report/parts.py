"""Pieces of HTML that the pages share: tiles, tables with bars, a line chart."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from benchmarks.report.style import CSS
from conf.pages import content_policy

COLOURS = ("#2c5fb3", "#d07a1f", "#1a7f4b", "#8a4fb0", "#b3382c", "#0f8a94", "#6b7280", "#b8860b", "#c2528b", "#4b5563")
WIDTH, HEIGHT, MARGIN = 560, 280, 44


def page(title: str, body: str, script: str = "") -> str:
    """A whole document. Its policy lets no other script run than this one, and nothing be loaded or sent, as on
    training pages.
    """
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        + content_policy([script] if script else [])
    )
    last = f"<script>{script}</script>\n" if script else ""
    return (
        f'<!doctype html>\n<html lang="en">\n<head>{head}\n<title>{escape(title)}</title>\n<style>{CSS}</style>\n'
        f"</head>\n<body>\n<main>\n{body}\n</main>\n{last}</body>\n</html>\n"
    )


def percent(value: float | None) -> str:
    """0.8512 as 85.1; a dash for what is not known."""
    return "–" if value is None else f"{100 * value:.1f}"


def interval_text(interval: Mapping[str, float] | None) -> str:
    """The ends of an interval, in percent."""
    return "" if interval is None else f"{percent(interval['low'])} to {percent(interval['high'])}"


def tile(label: str, value: str, note: str = "") -> str:
    """One number in a box."""
    tail = f"<br><span>{escape(note)}</span>" if note else ""
    return f'<div class="tile"><b>{escape(value)}</b><span>{escape(label)}</span>{tail}</div>'


def tag(text: str, kind: str = "") -> str:
    """A word in a rounded box; `kind` is good, bad or nothing."""
    return f'<span class="tag {kind}">{escape(text)}</span>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]], numeric_from: int = 1) -> str:
    """Cells are text; columns from `numeric_from` on are right-aligned."""

    def cells(tag: str, row: Sequence[str]) -> str:
        return "".join(
            f'<{tag} class="n">{escape(cell)}</{tag}>' if i >= numeric_from else f"<{tag}>{escape(cell)}</{tag}>"
            for i, cell in enumerate(row)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{cells("th", head)}</tr>{body}</table></div>'


def bars(rows: Sequence[tuple[str, Mapping[str, float] | None]]) -> str:
    """One line a name: its mean in percent, the interval, and a bar."""
    lines = []
    for name, interval in rows:
        mean = interval["mean"] if interval else None
        lines.append(
            f'<tr><td>{escape(name)}</td><td class="n">{percent(mean)}</td>'
            f'<td class="n soft">{interval_text(interval)}</td>'
            f'<td class="bar"><div class="track"><i style="width:{100 * (mean or 0):.1f}%"></i></div></td></tr>'
        )
    return f'<div class="scroll"><table>{"".join(lines)}</table></div>'


def line_chart(series: Mapping[str, Sequence[float]], label: str) -> str:
    """Shares in [0, 1] against 1..n, as inline SVG; the vertical axis covers what is there."""
    values = [value for line in series.values() for value in line]
    n = max(map(len, series.values()))
    low = max(0.0, min(values) - 0.02)
    high = min(1.0, max(values) + 0.02)

    def x(k: int) -> float:
        return MARGIN + (WIDTH - MARGIN - 12) * (k - 1) / max(1, n - 1)

    def y(value: float) -> float:
        return HEIGHT - 28 - (HEIGHT - 40) * (value - low) / max(1e-9, high - low)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">']
    for step in range(5):
        value = low + (high - low) * step / 4
        parts.append(
            f'<line x1="{MARGIN}" x2="{WIDTH - 12}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="var(--line)"/>'
            f'<text x="{MARGIN - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{percent(value)}</text>'
        )
    for k in sorted({1, *range(5, n + 1, 5), n}):
        parts.append(f'<text x="{x(k):.1f}" y="{HEIGHT - 8}" text-anchor="middle">{k}</text>')
    for colour, (_, line) in zip(COLOURS, series.items(), strict=False):
        points = " ".join(f"{x(k):.1f},{y(value):.1f}" for k, value in enumerate(line, start=1))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
    legend = " ".join(
        f'<span class="tag" style="border-color:{colour}">{escape(name)}</span>'
        for colour, name in zip(COLOURS, series, strict=False)
    )
    return f'<figure>{"".join(parts)}</svg><figcaption class="tags">{legend}</figcaption></figure>'


def options(values: Sequence[Any], every: str) -> str:
    """The options of a select, the first of which means all."""
    return f'<option value="">{escape(every)}</option>' + "".join(f"<option>{escape(str(v))}</option>" for v in values)
