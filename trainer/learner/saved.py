"""What a learner's checkpoint says of itself, and which settings it can go on under. Needs no torch, so that a driver
asks before anything is started."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import NonNegativeInt

from conf.schema.learner import LearnerConfig
from records.checkpoint import read_as

LEARNER = "learner"
"""Folder of a checkpoint that only the same learner reads."""
META = "state.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class SavedLearner:
    """learner/state.json of a checkpoint."""

    zero_stage: NonNegativeInt
    world_size: NonNegativeInt
    """Learner ranks."""
    lora_rank: NonNegativeInt = 0
    applied: NonNegativeInt
    """Optimizer updates so far."""
    skipped: NonNegativeInt


def read_saved(checkpoint: Path) -> SavedLearner:
    """Raises CheckpointInvalid."""
    return read_as(SavedLearner, checkpoint / LEARNER / META, checkpoint)


def contradictions(saved: SavedLearner, now: LearnerConfig) -> dict[str, tuple[int, int]]:
    """Settings under which the saved optimizer state or adapters mean nothing: what they were, and what they are.

    A ZeRO stage shapes what is saved; above 0 each rank saves its own share, so their number counts too.
    """
    settings = {
        "learner.zero_stage": (saved.zero_stage, now.zero_stage),
        "learner.lora.rank": (saved.lora_rank, now.lora.rank),
    }
    if saved.zero_stage == now.zero_stage > 0:
        settings["learner.ranks"] = (saved.world_size, now.ranks)
    return {name: (was, is_now) for name, (was, is_now) in settings.items() if was != is_now}
