"""The learning rate as a pure function of the number of updates already applied."""

import math

from conf.schema.learner import LearnerConfig


def learning_rate(applied: int, config: LearnerConfig, total: int) -> float:
    """Rate for the update after `applied` ones: linear warm-up, then constant, linear to 0 or cosine to 0 at
    `total`."""
    if applied < config.warmup_steps:
        return config.learning_rate * (applied + 1) / config.warmup_steps
    progress = min(1.0, (applied - config.warmup_steps) / max(1, total - config.warmup_steps))
    factor = {"constant": 1.0, "linear": 1.0 - progress, "cosine": 0.5 * (1.0 + math.cos(math.pi * progress))}
    return config.learning_rate * factor[config.schedule]
