"""What the runs of an ablation reached: reading their files, means over seeds, paired differences, a table. Pure.

A difference is taken seed by seed, so that what a seed's warm-up decided does not enter its spread.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from records.files import read_rows

METRICS = {"greedy": "eval/greedy_ex", "mean": "eval/mean_at_n", "vote": "eval/vote_ex", "recall": "eval/recall_at_n"}
LABELS = {
    "finer": "finer (all components)",
    "strict": "strict",
    "without_execution": "finer without execution",
    "without_atomic": "finer without atomic",
    "without_memory": "finer without memory",
    "without_format": "finer without format",
}

Curve = Mapping[int, Mapping[str, float]]
"""Optimizer steps done -> held-out accuracies by name of METRICS, in [0, 1]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """One run."""

    variant: str
    seed: int
    curve: Curve
    minutes: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """A value over seeds."""

    mean: float
    deviation: float
    """Sample standard deviation; 0 for one seed."""
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class VariantResult:
    seeds: tuple[int, ...]
    curve: Mapping[int, Mapping[str, Spread]]
    """Steps that every seed's run was evaluated at; step 0 is the warmed-up policy."""
    gain: Mapping[str, Spread]
    """Last step's accuracies less the reference's of the same seed; for the reference, less its own of step 0."""
    minutes: float
    """Mean wall time of a run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    reference: str
    variants: Mapping[str, VariantResult]
    outcomes: tuple[Outcome, ...]


def read_run(folder: Path, *, variant: str, seed: int) -> Outcome:
    """The evaluations of a finished run. Raises OSError, ValueError or KeyError for a folder that holds none."""
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    curve: dict[int, dict[str, float]] = {}
    for row in read_rows(folder / "metrics.jsonl"):
        found = {name: row[key] for name, key in METRICS.items() if row.get(key) is not None}
        if found:
            curve[row["step"]] = found
    return Outcome(variant=variant, seed=seed, curve=curve, minutes=summary["wall_s"] / 60)


def compare(outcomes: Sequence[Outcome], *, reference: str) -> Comparison:
    """Every variant over the seeds that it has run with. The reference must have run with all of them."""
    by_seed = {outcome.seed: outcome for outcome in outcomes if outcome.variant == reference}
    names = dict.fromkeys(outcome.variant for outcome in outcomes)
    variants = {
        name: _variant([o for o in outcomes if o.variant == name], by_seed, name == reference) for name in names
    }
    return Comparison(reference=reference, variants=variants, outcomes=tuple(outcomes))


def _variant(outcomes: Sequence[Outcome], reference: Mapping[int, Outcome], is_reference: bool) -> VariantResult:
    # All runs of a seed start from one policy, which the reference's run evaluated.
    curves = [{0: reference[outcome.seed].curve[0], **outcome.curve} for outcome in outcomes]
    steps = sorted(set.intersection(*(set(curve) for curve in curves)))
    bases = [
        curve[0] if is_reference else reference[outcome.seed].curve[steps[-1]]
        for outcome, curve in zip(outcomes, curves, strict=True)
    ]
    return VariantResult(
        seeds=tuple(outcome.seed for outcome in outcomes),
        curve={step: {name: spread([c[step][name] for c in curves]) for name in METRICS} for step in steps},
        gain={
            name: spread([c[steps[-1]][name] - base[name] for c, base in zip(curves, bases, strict=True)])
            for name in METRICS
        },
        minutes=fmean(outcome.minutes for outcome in outcomes),
    )


def spread(values: Sequence[float]) -> Spread:
    """Of at least one value."""
    return Spread(
        mean=fmean(values),
        deviation=stdev(values) if len(values) > 1 else 0.0,
        low=min(values),
        high=max(values),
    )


def markdown(comparison: Comparison, *, n: int) -> str:
    """The table: accuracies after the last step in percent, mean and standard deviation over seeds, and the paired
    difference to the reference in points."""
    reference = comparison.variants[comparison.reference]
    head = (
        "reward",
        "greedy",
        f"mean of {n}",
        f"voting of {n}",
        f"recall@{n}",
        f"mean of {n}, less finer's, by seed",
        "minutes",
    )
    lines = [_row(head), _row(("---",) * len(head))]
    start = [_percent(reference.curve[0][name]) for name in METRICS]
    lines.append(_row(("before training", *start, "", "")))
    for name, result in comparison.variants.items():
        last = result.curve[max(result.curve)]
        difference = "" if name == comparison.reference else _points(result.gain["mean"])
        cells = [_percent(last[metric]) for metric in METRICS]
        lines.append(_row((LABELS[name], *cells, difference, f"{result.minutes:.1f}")))
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _percent(value: Spread) -> str:
    around = f" ± {100 * value.deviation:.1f}" if value.deviation else ""
    return f"{100 * value.mean:.1f}{around}"


def _points(value: Spread) -> str:
    return f"{100 * value.mean:+.1f} ({100 * value.low:+.1f} to {100 * value.high:+.1f})"


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Every run's curve, and the spreads over seeds."""
    return {
        "reference": comparison.reference,
        "runs": [
            {"variant": o.variant, "seed": o.seed, "minutes": o.minutes, "curve": o.curve} for o in comparison.outcomes
        ],
        "variants": {
            name: {
                "seeds": result.seeds,
                "curve": {step: _plain(row) for step, row in result.curve.items()},
                "gain": _plain(result.gain),
                "minutes": result.minutes,
            }
            for name, result in comparison.variants.items()
        },
    }


def _plain(spreads: Mapping[str, Spread]) -> dict[str, dict[str, float]]:
    return {
        name: {"mean": s.mean, "deviation": s.deviation, "low": s.low, "high": s.high} for name, s in spreads.items()
    }
