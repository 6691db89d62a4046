"""The table of samplers: a new one is one file, one schema variant in conf/schema/algo.py and one line here."""

from collections.abc import Callable, Sequence
from typing import Any

from conf.schema.algo import DifficultySampler, SamplerConfig, UniformSampler
from rewards.carriers import SqlTask
from rollout.tasks.difficulty import DifficultyStream
from rollout.tasks.stream import Stream, TaskStream


def _uniform(config: UniformSampler, tasks: Sequence[SqlTask], seed: int, group_size: int) -> Stream:
    return TaskStream(tasks, seed)


def _difficulty(config: DifficultySampler, tasks: Sequence[SqlTask], seed: int, group_size: int) -> Stream:
    return DifficultyStream(tasks, seed, config=config, group_size=group_size)


SAMPLERS: dict[str, Callable[[Any, Sequence[SqlTask], int, int], Stream]] = {
    "uniform": _uniform,
    "difficulty": _difficulty,
}


def build_stream(config: SamplerConfig, tasks: Sequence[SqlTask], *, seed: int, group_size: int) -> Stream:
    """The stream that `config.type` names. Raises DataError when there is no task."""
    return SAMPLERS[config.type](config, tasks, seed, group_size)
