"""Compares finished runs on the same questions: who is better, by how much, and is it shown?

A metric whose values are all 0 or 1 is tested with McNemar's exact test, any other with the paired randomisation test.
The tests of all pairs of runs under the compared metric are one family: their p-values are corrected together (Holm,
1979), whatever the metric. Intervals of differences hold for one pair alone and decide nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar

from benchmarks.carriers import BenchmarkError
from records.statistics.intervals import Interval, mean_interval
from records.statistics.significance import holm, mcnemar, paired_difference, randomisation
from rewards.cases import load_json

ALPHA = 0.05
HEADLINE = {"spider": "exec", "bird": "ex"}
FIELDS = {"spider": ("index", "hardness"), "bird": ("question_id", "difficulty")}
"""Benchmark -> what its verdicts call a question and its level."""
SCORES: Mapping[str, type] = {"benchmark": str, "data": str, "totals": dict, "by_level": dict}
TEXTS: Mapping[str, type] = {"db_id": str, "question": str, "sql": str}


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One run's verdicts by their place in verdicts.jsonl, which is that of the questions: ids may repeat."""

    name: str
    scores: Mapping[str, Any]
    verdicts: Mapping[int, Mapping[str, Any]]

    @property
    def key(self) -> str:
        """The verdict field that holds a question's number or id."""
        return FIELDS[self.scores["benchmark"]][0]

    @property
    def level(self) -> str:
        """The verdict field that holds a question's level."""
        return FIELDS[self.scores["benchmark"]][1]

    def values(self, metric: str, keys: Sequence[int]) -> list[float]:
        return [float(self.verdicts[key][metric]) for key in keys]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """Two runs side by side; the difference is second minus first."""

    first: str
    second: str
    difference: Interval
    only_first: int
    """Questions on which the first scores higher."""
    only_second: int
    p_value: float
    """Holm-corrected over all pairs of the comparison."""

    @property
    def shown(self) -> bool:
        """Whether the difference is significant."""
        return self.p_value < ALPHA

    COLUMNS: ClassVar = ("second - first", "difference", "95 %", "better in first", "better in second", "p (Holm)", "")

    @property
    def cells(self) -> tuple[str, ...]:
        """Text for the COLUMNS of a table; differences in points."""
        mean, low, high = self.difference
        return (
            f"{self.second} - {self.first}",
            f"{100 * mean:+.2f}",
            f"{100 * low:+.1f} to {100 * high:+.1f}",
            str(self.only_first),
            str(self.only_second),
            f"{self.p_value:.3g}",
            "different" if self.shown else "no difference shown",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Runs from best to worst, and every pair of them."""

    metric: str
    runs: tuple[Run, ...]
    keys: tuple[int, ...]
    """Questions that all runs could score."""
    means: Mapping[str, Interval]
    pairs: tuple[Pair, ...]

    @property
    def conclusion(self) -> str:
        """One sentence: a winner, or that none is shown."""
        best = self.runs[0].name
        rivals = [pair for pair in self.pairs if best in (pair.first, pair.second)]
        equal = [pair.second if pair.first == best else pair.first for pair in rivals if not pair.shown]
        if not equal:
            return f"{best} wins: better than {'the other' if len(rivals) == 1 else 'all others'} in {self.metric}"
        return f"no difference shown between {best} and {', '.join(equal)} in {self.metric}"


def read_run(folder: str) -> Run:
    """Raises BenchmarkError when the folder is no finished run."""
    path = Path(folder)
    try:
        scores = load_json((path / "scores.json").read_bytes())
        lines = (path / "verdicts.jsonl").read_bytes().split(b"\n")
        verdicts = [load_json(line) for line in lines if line]
    except OSError as error:
        raise BenchmarkError(
            f"{folder}: a finished run expected, with scores.json and verdicts.jsonl ({error.strerror})"
        ) from error
    except (ValueError, RecursionError) as error:
        raise BenchmarkError(f"{folder}: not the files of a benchmark run: {error}") from error
    if not isinstance(scores, dict) or not _has(scores, SCORES) or scores["benchmark"] not in HEADLINE:
        raise BenchmarkError(f"{folder}/scores.json: the scores of benchmarks.spider, bird or demo expected")
    key, level = FIELDS[scores["benchmark"]]
    fields: dict[str, type | UnionType] = {**TEXTS, key: int | str, level: str | None}
    for number, verdict in enumerate(verdicts, start=1):
        if not isinstance(verdict, dict) or not _has(verdict, fields):
            raise BenchmarkError(f"{folder}/verdicts.jsonl line {number}: a verdict expected, with {', '.join(fields)}")
    if not verdicts:
        raise BenchmarkError(f"{folder}/verdicts.jsonl: one verdict a line expected")
    return Run(name=folder.rstrip("/"), scores=scores, verdicts=dict(enumerate(verdicts)))


def _has(entry: Mapping[str, Any], fields: Mapping[str, type | UnionType]) -> bool:
    """Whether all fields are there, each of its type."""
    return all(name in entry and isinstance(entry[name], kind) for name, kind in fields.items())


def compare(runs: Sequence[Run], metric: str | None) -> Comparison:
    """Raises BenchmarkError when the runs did not answer the same questions."""
    _check(runs)
    metric = metric or HEADLINE[runs[0].scores["benchmark"]]
    for run in runs:
        metrics = [name for name in run.scores["totals"] if name != "questions"]
        if metric not in metrics:
            raise BenchmarkError(f"{run.name} has no metric {metric}; it has {', '.join(metrics)}")
        for place, verdict in run.verdicts.items():
            if not isinstance(verdict.get(metric, ""), int | float | None):
                raise BenchmarkError(f"{run.name}/verdicts.jsonl line {place + 1}: a number expected under {metric}")
    keys = tuple(k for k in runs[0].verdicts if all(run.verdicts[k][metric] is not None for run in runs))
    if not keys:
        raise BenchmarkError("there is no question that all runs could score")
    means = {run.name: mean_interval(run.values(metric, keys)) for run in runs}
    ranked = tuple(sorted(runs, key=lambda run: -means[run.name].mean))
    return Comparison(metric=metric, runs=ranked, keys=keys, means=means, pairs=_pairs(ranked, metric, keys))


def _check(runs: Sequence[Run]) -> None:
    names = [run.name for run in runs]
    if len(runs) < 2 or len(set(names)) != len(names):
        raise BenchmarkError("at least two different runs expected")
    first = runs[0]
    asked = _questions(first)
    for run in runs[1:]:
        if run.scores["benchmark"] != first.scores["benchmark"]:
            raise BenchmarkError(
                f"{first.name} is a run of {first.scores['benchmark']}, {run.name} of {run.scores['benchmark']}"
            )
        if _questions(run) != asked:
            raise BenchmarkError(f"{first.name} and {run.name} did not answer the same questions in the same order")


def _questions(run: Run) -> list[tuple[str, str, str]]:
    # Runs of earlier versions kept the white space around a published question.
    return [(str(verdict[run.key]), verdict["db_id"], verdict["question"].strip()) for verdict in run.verdicts.values()]


def _pairs(ranked: Sequence[Run], metric: str, keys: Sequence[int]) -> tuple[Pair, ...]:
    values = {run.name: run.values(metric, keys) for run in ranked}
    binary = all(set(scores) <= {0.0, 1.0} for scores in values.values())
    names = list(combinations(values, 2))
    corrected = holm([_p_value(values[first], values[second], binary) for first, second in names])
    return tuple(
        Pair(
            first=first,
            second=second,
            difference=paired_difference(values[first], values[second]),
            only_first=sum(a > b for a, b in zip(values[first], values[second], strict=True)),
            only_second=sum(b > a for a, b in zip(values[first], values[second], strict=True)),
            p_value=p_value,
        )
        for (first, second), p_value in zip(names, corrected, strict=True)
    )


def _p_value(first: Sequence[float], second: Sequence[float], binary: bool) -> float:
    if binary:
        return mcnemar([a > 0 for a in first], [b > 0 for b in second]).p_value
    return randomisation([b - a for a, b in zip(first, second, strict=True)])
