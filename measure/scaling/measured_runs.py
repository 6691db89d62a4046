"""Run folders as calibration and as something to predict."""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conf.errors import QuorumError
from conf.schema.root import TrainConfig
from measure.scaling.costs import Costs, Machine, Row, measured
from measure.scaling.run import TAIL, WARMUP, simulated
from records.files import read_rows
from records.run_folder import METRICS, SAMPLES, read_config


class RunUnusable(QuorumError):
    """A run folder that cannot serve; the message says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredRun:
    name: str
    config: TrainConfig
    steps: tuple[tuple[Row, float], ...]
    """(metrics row, wall seconds) of the counted steps, which are those that a simulation counts."""
    total: int
    lengths: tuple[int, ...]

    @property
    def step_s(self) -> float:
        return sum(wall for _, wall in self.steps) / len(self.steps)

    @property
    def cores(self) -> float:
        return float(self.config.cluster.cpus or os.cpu_count() or 1)


def read_run(folder: Path) -> MeasuredRun:
    """Raises RunUnusable."""
    try:
        config = TrainConfig.model_validate(read_config(folder))
        rows = list(_step_rows(read_rows(folder / METRICS)))
    except (OSError, ValueError) as error:
        raise RunUnusable(f"{folder} is no run folder that can be read: {error}") from error
    if len(rows) < WARMUP + TAIL + 1:
        raise RunUnusable(f"{folder} holds {len(rows)} steps: at least {WARMUP + TAIL + 1} are needed")
    return MeasuredRun(
        name=folder.name,
        config=config,
        steps=tuple(rows[WARMUP:-TAIL]),
        total=len(rows),
        lengths=tuple(_lengths(folder)),
    )


def _step_rows(rows: Iterable[Row]) -> Iterator[tuple[Row, float]]:
    """Rows of optimizer steps with their wall seconds, without the evaluations and checkpoints since the row before.

    The first step's includes the start of the run.
    """
    since = 0.0
    for row in rows:
        since += sum(row.get(f"perf/{stage}_s") or 0.0 for stage in ("evaluate", "checkpoint"))
        if row.get("perf/completions") is not None:
            yield row, row["perf/elapsed_s"] - since
            since = row["perf/elapsed_s"]


def _lengths(folder: Path) -> Iterator[int]:
    file = folder / SAMPLES
    if file.is_file():
        for row in read_rows(file):
            yield from (completion["tokens"] for completion in row["completions"])


def calibrated(runs: Sequence[MeasuredRun]) -> Costs:
    """Raises RunUnusable for runs that overlapped generation and training, or that were taken on several devices."""
    for run in runs:
        if run.config.pipeline.max_staleness:
            raise RunUnusable(f"{run.name} overlapped its stages: costs are fitted to runs with max_staleness=0")
        if run.config.rollout.workers > 1:
            raise RunUnusable(f"{run.name} had several workers: costs are fitted to runs with one")
    config = runs[0].config
    lengths = [length for run in runs for length in run.lengths]
    if not lengths:
        raise RunUnusable("no calibration run has samples.jsonl, which the lengths of completions come from")
    server = config.reward.server
    machine = Machine(
        engine_threads=config.rollout.engine.threads,
        learner_threads=config.learner.threads,
        max_num_seqs=config.rollout.engine.max_num_seqs,
        scorers=server.actors,
    )
    return measured([step for run in runs for step in run.steps], lengths, machine)


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    run: str
    measured_s: float
    predicted_s: float

    @property
    def error(self) -> float:
        """Relative."""
        return self.predicted_s / self.measured_s - 1.0

    def as_json(self) -> dict[str, Any]:
        figures = {"measured_s": self.measured_s, "predicted_s": self.predicted_s, "error": self.error}
        return json.loads(json.dumps({"run": self.run} | figures))


def predict(run: MeasuredRun, costs: Costs) -> Prediction:
    """The run's mean step, by simulation of its settings with as many steps."""
    found = simulated(run.config, costs, steps=run.total, workers=run.config.rollout.workers, cores=run.cores)
    return Prediction(run=run.name, measured_s=run.step_s, predicted_s=found.step_s)
