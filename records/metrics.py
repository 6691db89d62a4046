"""One step's measurements, reduced to one flat row, written to every sink.

Guarantees: a row holds only registered keys (`records/metrics_keys.py`) and only finite numbers or null: strict JSON.
Does not guarantee that a key appears in every row: what was not measured is absent, never zero.
"""

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Protocol

from records.metrics_keys import KEYS, Reduction

Row = dict[str, int | float | None]
"""`step`, `version`, then metric keys. null: the value was not finite."""


class UnknownMetric(Exception):
    """A key that the registry does not hold was logged: a programming error, never dropped silently."""


class Sink(Protocol):
    """Where rows go."""

    def write(self, row: Row) -> None: ...

    def close(self) -> None: ...


@dataclass(slots=True)
class _Samples:
    values: list[float] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)


def _weighted_mean(samples: _Samples) -> float:
    total = sum(samples.weights)
    if total == 0:
        return math.nan
    return sum(v * w for v, w in zip(samples.values, samples.weights, strict=True)) / total


_REDUCE: Mapping[Reduction, Callable[[_Samples], float]] = {
    "mean": _weighted_mean,
    "sum": lambda samples: math.fsum(samples.values),
    "max": lambda samples: max(samples.values),
    "min": lambda samples: min(samples.values),
    "last": lambda samples: samples.values[-1],
}


def _reduce(key: str, samples: _Samples) -> float:
    """One number; NaN as soon as one value is not finite, so that no reduction hides it."""
    if not all(map(math.isfinite, samples.values)):
        return math.nan
    return _REDUCE[KEYS[key].reduction](samples)


class StepMetrics:
    """Collects the values of one optimizer step; each key is reduced as its registry entry says."""

    def __init__(self, *, step: int, version: int) -> None:
        self.step = step
        self.version = version
        self._samples: dict[str, _Samples] = {}

    def add(self, key: str, value: float, *, weight: float = 1.0) -> None:
        """Adds one value; `weight` (such as the tokens behind it) counts for mean reductions. Raises UnknownMetric."""
        if key not in KEYS:
            close = difflib.get_close_matches(key, KEYS, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise UnknownMetric(f"metric {key!r} is not registered in records/metrics_keys.py{hint}")
        samples = self._samples.setdefault(key, _Samples())
        samples.values.append(float(value))
        samples.weights.append(float(weight))

    def update(self, values: Mapping[str, float], *, weight: float = 1.0) -> None:
        """Adds one value for each key. Raises UnknownMetric."""
        for key, value in values.items():
            self.add(key, value, weight=weight)

    def row(self) -> Row:
        """The flat row, keys in registry order; values that are not finite become null and are counted."""
        reduced = {key: _reduce(key, self._samples[key]) for key in KEYS if key in self._samples}
        lost = sum(not math.isfinite(value) for value in reduced.values())
        row: Row = {"step": self.step, "version": self.version}
        row.update({key: value if math.isfinite(value) else None for key, value in reduced.items()})
        if lost:
            row["perf/nonfinite_metrics"] = float(lost)
        return row


class Sinks:
    """Writes each row to every sink, in order; closes all of them even if one fails to close."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = tuple(sinks)

    def write(self, row: Row) -> None:
        for sink in self._sinks:
            sink.write(row)

    def close(self) -> None:
        with ExitStack() as stack:
            for sink in self._sinks:
                stack.callback(sink.close)
