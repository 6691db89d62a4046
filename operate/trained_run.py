"""A run that is used after training: its configuration, one of its checkpoints, and how that was evaluated."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from conf.errors import QuorumError
from conf.explain import explain_validation
from conf.schema.root import TrainConfig
from records.checkpoint import check_newest, check_whole, step_of
from records.files import Json, RecordsDamaged, read_rows
from records.index.collect import best_checkpoint, checkpoints
from records.run_folder import CHECKPOINTS, CONFIG, METRICS, read_config


class NotUsable(QuorumError):
    """The folder is no run, or holds no such checkpoint."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    run: Path
    config: TrainConfig
    checkpoint: Path

    @property
    def policy(self) -> Path:
        return self.checkpoint / "policy"

    @property
    def step(self) -> int:
        return step_of(self.checkpoint)

    def evaluation(self) -> Json:
        """The metrics of the evaluation at the checkpoint's step; empty when none was made."""
        found: Json = {}
        for row in read_rows(self.run / METRICS):
            if row["step"] == self.step:
                found |= {key: value for key, value in row.items() if key.startswith("eval/")}
        return found


def trained(run: Path, which: str = "last") -> Trained:
    """`which`: "last", "best" (highest greedy accuracy among the evaluated) or a step. Raises NotUsable, and
    CheckpointInvalid for one whose files are damaged."""
    config = run_config(run)
    if which == "last":
        check_newest(run / CHECKPOINTS)
    whole = checkpoints(run)
    if not whole:
        raise NotUsable(f"{run} holds no checkpoint")
    chosen = _chosen(run, whole, which)
    check_whole(chosen)
    return Trained(run=run, config=config, checkpoint=chosen)


def _chosen(run: Path, whole: list[Path], which: str) -> Path:
    if which == "last":
        return whole[-1]
    if which == "best":
        best = best_checkpoint(run)
        if best is None:
            raise NotUsable(f"no checkpoint of {run} was evaluated: choose last or a step")
        return best
    for folder in whole:
        if which.isdecimal() and step_of(folder) == int(which):
            return folder
    steps = ", ".join(str(step_of(folder)) for folder in whole)
    raise NotUsable(f"{run} holds no checkpoint {which}: choose last, best or {steps}")


def run_config(run: Path) -> TrainConfig:
    """The configuration that a run was made with. Raises NotUsable."""
    try:
        values = read_config(run)
    except RecordsDamaged as error:
        raise NotUsable(f"{run} is no run folder that can be used: {error}") from error
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as error:
        explained = explain_validation(TrainConfig, values, error)
        raise NotUsable(f"{run / CONFIG} was written by another version: {explained}") from error
