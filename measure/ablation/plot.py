"""The ablation's curves as SVG: one panel a variant, its mean over seeds with the range, the reference in grey behind.

One scale for all panels, so that they can be read against each other.
"""

from collections.abc import Mapping
from html import escape

from measure.ablation.results import LABELS, Comparison, Spread, VariantResult

METRIC = "mean"
COLUMNS = 3
PANEL_WIDTH, PANEL_HEIGHT = 260, 200
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 30, 30
LINE, SHADE, GREY, GREY_SHADE, INK, RULE = "#2c5fb3", "#2c5fb333", "#8a93a0", "#8a93a033", "#3d4653", "#d9dee6"


def draw(comparison: Comparison, *, n: int) -> str:
    """A whole SVG document: mean accuracy of n sampled candidates on held-out tasks against optimizer steps."""
    shown = [name for name in comparison.variants if name != comparison.reference] or [comparison.reference]
    rows = -(-len(shown) // COLUMNS)
    width, height = COLUMNS * PANEL_WIDTH, rows * PANEL_HEIGHT + 34
    scale = _Scale(comparison)
    reference = comparison.variants[comparison.reference]
    panels = "".join(
        f'<g transform="translate({place % COLUMNS * PANEL_WIDTH},{place // COLUMNS * PANEL_HEIGHT + 34})">'
        f"{_panel(LABELS[name], comparison.variants[name], reference, scale)}</g>"
        for place, name in enumerate(shown)
    )
    title = f"Held-out accuracy, mean of {n} candidates (%), against optimizer steps"
    note = f"line: mean over seeds; band: lowest to highest seed; grey: {LABELS[comparison.reference]}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="sans-serif" font-size="11" fill="{INK}" role="img" aria-label="{escape(title)}">'
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>'
        f'<text x="{LEFT}" y="15" font-size="13" font-weight="bold">{escape(title)}</text>'
        f'<text x="{LEFT}" y="30">{escape(note)}</text>{panels}</svg>\n'
    )


class _Scale:
    """From (step, accuracy) to a panel's coordinates."""

    def __init__(self, comparison: Comparison) -> None:
        spreads = [row[METRIC] for result in comparison.variants.values() for row in result.curve.values()]
        self.last = max(step for result in comparison.variants.values() for step in result.curve)
        self.low = max(0.0, min(s.low for s in spreads) - 0.02)
        self.high = min(1.0, max(s.high for s in spreads) + 0.02)

    def x(self, step: float) -> float:
        return LEFT + (PANEL_WIDTH - LEFT - RIGHT) * step / max(1, self.last)

    def y(self, accuracy: float) -> float:
        return PANEL_HEIGHT - BOTTOM - (PANEL_HEIGHT - TOP - BOTTOM) * (accuracy - self.low) / (self.high - self.low)


def _panel(label: str, result: VariantResult, reference: VariantResult, scale: _Scale) -> str:
    parts = [f'<text x="{LEFT}" y="{TOP - 10}" font-weight="bold">{escape(label)}</text>']
    for step in range(5):
        value = scale.low + (scale.high - scale.low) * step / 4
        parts.append(
            f'<line x1="{LEFT}" x2="{PANEL_WIDTH - RIGHT}" y1="{scale.y(value):.1f}" y2="{scale.y(value):.1f}" '
            f'stroke="{RULE}"/><text x="{LEFT - 6}" y="{scale.y(value) + 4:.1f}" text-anchor="end">'
            f"{100 * value:.0f}</text>"
        )
    for step in sorted(result.curve):
        parts.append(f'<text x="{scale.x(step):.1f}" y="{PANEL_HEIGHT - 14}" text-anchor="middle">{step}</text>')
    if result is not reference:
        parts.append(_curve(reference.curve, scale, GREY, GREY_SHADE))
    parts.append(_curve(result.curve, scale, LINE, SHADE))
    return "".join(parts)


def _curve(curve: Mapping[int, Mapping[str, Spread]], scale: _Scale, line: str, shade: str) -> str:
    steps = sorted(curve)
    band = [(step, curve[step][METRIC].high) for step in steps]
    band += [(step, curve[step][METRIC].low) for step in reversed(steps)]
    middle = [(step, curve[step][METRIC].mean) for step in steps]

    def points(places: list[tuple[int, float]]) -> str:
        return " ".join(f"{scale.x(step):.1f},{scale.y(value):.1f}" for step, value in places)

    return (
        f'<polygon points="{points(band)}" fill="{shade}"/>'
        f'<polyline points="{points(middle)}" fill="none" stroke="{line}" stroke-width="2"/>'
    )
