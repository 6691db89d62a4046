"""Geometry of one chart: from series over steps to the coordinates an SVG template draws. Pure.

A chart is drawn in a box of WIDTH x HEIGHT px, the size of a phone's column, so its text is readable without scaling on
any screen; wider screens show several beside each other.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

WIDTH, HEIGHT = 360, 200
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 10, 24
MAX_POINTS = 160
"""Points drawn for each series; longer runs are averaged over neighbouring steps."""
FEW_POINTS = 12
"""Up to here every point is marked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """One quantity over steps."""

    label: str
    points: tuple[tuple[float, float], ...]
    """(step, value) in rising order of steps; steps without a finite value are absent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    title: str
    unit: str
    """Unit of the registry; "share" is shown in percent."""
    series: tuple[Series, ...]
    note: str = ""
    kind: Literal["line", "stack"] = "line"
    """stack: bars, one above the other, for parts of a whole."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawnSeries:
    label: str
    path: str = ""
    """SVG path of the line, smoothed where the series is long."""
    raw_path: str = ""
    """SVG path of the measured values where `path` is smoothed."""
    dots: tuple[tuple[float, float], ...] = ()
    bars: tuple[Bar, ...] = ()
    latest: str = ""
    """The last measured value."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawn:
    """Everything the template needs; coordinates in px of the WIDTH x HEIGHT box."""

    title: str
    note: str
    series: tuple[DrawnSeries, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    readout: dict[str, list]
    """x: px of each step; step: its label; values: for each series the formatted value, or None."""
    description: str
    """The chart in one sentence, for readers who do not see it."""


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` round values (1, 2 or 5 times a power of ten apart) that cover low..high."""
    if high <= low:
        high = low + (abs(low) or 1.0)
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def number(value: float, unit: str) -> str:
    """A value with about three significant digits; shares as percent."""
    if unit == "share":
        return f"{100 * value:.1f} %"
    if value and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.2e}".replace("e-0", "e-").replace("e+0", "e")
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _tick_label(value: float, unit: str) -> str:
    if unit == "share":
        return f"{100 * value:g} %"
    return f"{value:g}" if abs(value) < 10_000 else f"{value / 1000:g}k"


def thin(points: Sequence[tuple[float, float]], limit: int = MAX_POINTS) -> list[tuple[float, float]]:
    """At most `limit` points: means over runs of neighbours, each at its last step."""
    size = math.ceil(len(points) / limit)
    chunks = [points[start : start + size] for start in range(0, len(points), size)] if points else []
    return [(chunk[-1][0], math.fsum(value for _, value in chunk) / len(chunk)) for chunk in chunks]


def smooth(values: Sequence[float], window: int) -> list[float]:
    """Centred moving average over `window` values, over fewer at both ends."""
    half = window // 2
    slices = (values[max(0, index - half) : index + half + 1] for index in range(len(values)))
    return [math.fsum(part) / len(part) for part in slices]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Scale:
    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        span = self.high - self.low
        share = (value - self.low) / span if span else 0.5
        return round(self.start + share * (self.end - self.start), 1)


def _value_range(values: Sequence[float], unit: str, *, from_zero: bool) -> tuple[float, float]:
    low, high = min(values), max(values)
    if from_zero or 0 <= low < 0.6 * high:
        low = min(0.0, low)
    if high == low:
        pad = abs(high) * 0.1 or 1.0
        low, high = low - pad if low else 0.0, high + pad
    return low, min(high, 1.0) if unit == "share" and max(values) <= 1.0 else high


def _path(points: Sequence[tuple[float, float]], x: _Scale, y: _Scale) -> str:
    return "M" + "L".join(f"{x(step):g} {y(value):g}" for step, value in points)


def _line(series: Series, x: _Scale, y: _Scale) -> DrawnSeries:
    window = len(series.points) // 20 | 1
    values = smooth([value for _, value in series.points], window)
    smoothed = [(step, value) for (step, _), value in zip(series.points, values, strict=True)]
    few = len(series.points) <= FEW_POINTS
    return DrawnSeries(
        label=series.label,
        path=_path(smoothed, x, y),
        raw_path=_path(series.points, x, y) if window > 1 else "",
        dots=tuple((x(step), y(value)) for step, value in series.points) if few else (),
    )


def _stack(series: Sequence[Series], steps: Sequence[float], x: _Scale, y: _Scale) -> tuple[DrawnSeries, ...]:
    base = dict.fromkeys(steps, 0.0)
    slot = (WIDTH - LEFT - RIGHT) / max(1, len(steps))
    width = round(min(max(slot - (1 if slot > 3 else 0), 0.8), 18.0), 2)
    drawn = []
    for one in series:
        bars = []
        for step, value in one.points:
            bottom, top = y(base[step]), y(base[step] + value)
            bars.append(Bar(x=round(x(step) - width / 2, 2), y=top, width=width, height=round(bottom - top, 1)))
            base[step] += value
        drawn.append(DrawnSeries(label=one.label, bars=tuple(bars)))
    return tuple(drawn)


def draw(chart: Chart) -> Drawn:
    """Lays the chart out. Needs at least one series, each with at least one point."""
    series = tuple(Series(label=one.label, points=tuple(thin(one.points))) for one in chart.series)
    steps = sorted({step for one in series for step, _ in one.points})
    stacked = chart.kind == "stack"
    sums = [math.fsum(v for one in series for s, v in one.points if s == step) for step in steps] if stacked else []
    values = [value for one in series for _, value in one.points] + sums
    y_values = ticks(*_value_range(values, chart.unit, from_zero=stacked))
    pad = 9.5 if stacked else 0.0
    x = _Scale(low=steps[0], high=steps[-1], start=LEFT + pad, end=WIDTH - RIGHT - pad)
    y = _Scale(low=y_values[0], high=y_values[-1], start=HEIGHT - BOTTOM, end=TOP)
    drawn = _stack(series, steps, x, y) if stacked else tuple(_line(one, x, y) for one in series)
    # What is said in words is what was measured, also where the drawing shows means over neighbours.
    latest = (number(one.points[-1][1], chart.unit) for one in chart.series)
    drawn = tuple(replace(one, latest=said) for one, said in zip(drawn, latest, strict=True))
    x_values = [v for v in ticks(steps[0], steps[-1]) if steps[0] <= v <= steps[-1] and v == int(v)] or steps[:1]
    by_step = [dict(one.points) for one in series]
    return Drawn(
        title=chart.title,
        note=chart.note,
        series=drawn,
        x_ticks=tuple((x(value), f"{value:g}") for value in x_values),
        y_ticks=tuple((y(value), _tick_label(value, chart.unit)) for value in y_values),
        readout={
            "x": [x(step) for step in steps],
            "step": [f"{step:g}" for step in steps],
            "values": [[number(p[s], chart.unit) if s in p else None for s in steps] for p in by_step],
        },
        description=f"{chart.title}. " + "; ".join(_sentence(one, chart.unit) for one in chart.series),
    )


def _sentence(series: Series, unit: str) -> str:
    (first_step, first), (last_step, last) = series.points[0], series.points[-1]
    if first_step == last_step:
        return f"{series.label}: {number(last, unit)} at step {last_step:g}"
    return f"{series.label}: {number(first, unit)} at step {first_step:g}, {number(last, unit)} at step {last_step:g}"
