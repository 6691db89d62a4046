"""Curves with bands as one SVG panel. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 60, 20, 20, 50
COLOURS = ("#2c5fb3", "#1b8a5a", "#b3562c", "#7a4fb3", "#3d4653")
INK, RULE = "#3d4653", "#d9dee6"
LEGEND_LINE = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """One system: its mean over seeds, lowest and highest seed, at rising `x`."""

    label: str
    x: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


def draw(curves: Sequence[Curve], *, x: str, y: str) -> str:
    """A whole SVG document; at most as many curves as there are colours."""
    scale = _Scale(curves)
    parts = [_axes(scale, x, y)]
    for place, (curve, colour) in enumerate(zip(curves, COLOURS, strict=False)):
        parts.append(_curve(curve, scale, colour))
        top = TOP + HEIGHT - BOTTOM - TOP - LEGEND_LINE * (len(curves) - place)
        parts.append(
            f'<line x1="{WIDTH - 300}" x2="{WIDTH - 276}" y1="{top - 4}" y2="{top - 4}" stroke="{colour}" '
            f'stroke-width="2"/><text x="{WIDTH - 270}" y="{top}">{escape(curve.label)}</text>'
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'font-family="sans-serif" font-size="12" fill="{INK}" role="img" aria-label="{escape(y)}, {escape(x)}">'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>{"".join(parts)}</svg>\n'
    )


class _Scale:
    """From values to coordinates."""

    def __init__(self, curves: Sequence[Curve]) -> None:
        self.right = max(curve.x[-1] for curve in curves)
        self.low = min(min(curve.low) for curve in curves)
        self.high = max(max(curve.high) for curve in curves)

    def x(self, value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * value / self.right

    def y(self, value: float) -> float:
        span = (self.high - self.low) or 1.0
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - self.low) / span


def _axes(scale: _Scale, x: str, y: str) -> str:
    parts = []
    for tick in range(5):
        value = scale.low + (scale.high - scale.low) * tick / 4
        across = scale.right * tick / 4
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{scale.y(value):.1f}" y2="{scale.y(value):.1f}" '
            f'stroke="{RULE}"/><text x="{LEFT - 6}" y="{scale.y(value) + 4:.1f}" text-anchor="end">{value:.2f}</text>'
            f'<text x="{scale.x(across):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{across:,.0f}</text>'
        )
    parts.append(f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 12}" text-anchor="middle">{escape(x)}</text>')
    parts.append(f'<text transform="translate(16,{HEIGHT / 2}) rotate(-90)" text-anchor="middle">{escape(y)}</text>')
    return "".join(parts)


def _curve(curve: Curve, scale: _Scale, colour: str) -> str:
    band = [*zip(curve.x, curve.high, strict=True), *reversed(list(zip(curve.x, curve.low, strict=True)))]
    middle = list(zip(curve.x, curve.mean, strict=True))

    def points(places: Sequence[tuple[float, float]]) -> str:
        return " ".join(f"{scale.x(across):.1f},{scale.y(up):.1f}" for across, up in places)

    return (
        f'<polygon points="{points(band)}" fill="{colour}" fill-opacity="0.13"/>'
        f'<polyline points="{points(middle)}" fill="none" stroke="{colour}" stroke-width="2"/>'
    )
