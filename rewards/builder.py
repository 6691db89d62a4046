"""Builds what a reward configuration asks for."""

from collections.abc import Iterator
from contextlib import contextmanager

from conf.schema.reward import RewardConfig
from rewards.components.memory import MemoryComponent
from rewards.scorer import Scorer
from rewards.sql.executor import ExecutorPool


@contextmanager
def open_scorer(config: RewardConfig) -> Iterator[Scorer]:
    """A scorer with its executors and its memory; the executors end with the block."""
    with ExecutorPool(config.server.executors) as pool:
        yield Scorer(config, pool, MemoryComponent(config.memory) if config.memory.enabled else None)
