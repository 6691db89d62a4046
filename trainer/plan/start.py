"""The plan at the start of a run: shown, or the run refused before anything starts."""

import json
from collections.abc import Callable
from pathlib import Path

from conf.schema.root import TrainConfig
from rollout.shape import ShapeUnknown, from_config, shape_of
from trainer.plan.advice import build_or_advise
from trainer.plan.layout import PlanImpossible
from trainer.plan.machine import assumed, here
from trainer.plan.text import brief


def check_plan(config: TrainConfig, policy: Path | None, note: Callable[[str], None]) -> None:
    """`policy`: the model's folder, where it exists already.

    A model that is no plain decoder cannot be estimated: that is said, and the run starts. Raises PlanImpossible,
    unless plan.refuse=false.
    """
    try:
        file = policy / "config.json" if policy else None
        shape = from_config(json.loads(file.read_text(encoding="utf-8"))) if file else shape_of(config.model)
    except (ShapeUnknown, OSError, KeyError, ValueError) as error:
        note(f"no plan: the shape of the model is not known ({error})")
        return
    try:
        plan = build_or_advise(config, shape, here if config.cluster.address is None else assumed)
    except PlanImpossible as error:
        if config.plan.refuse:
            raise PlanImpossible(f"{error} (plan.refuse=false starts it all the same)") from error
        note(f"plan: {error}")
        return
    for line in brief(plan):
        note(f"plan: {line}")
