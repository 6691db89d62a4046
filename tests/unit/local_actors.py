"""Reward actors that live in this process, each with a scorer and a memory of its own."""

import asyncio
from typing import Any

from conf.schema.reward import RewardConfig
from rewards.components.memory import MemoryComponent
from rewards.port import ActorGone, Reply
from rewards.scorer import Scorer
from rewards.sql.executor import ExecutorPool


class LocalActor:
    """`dead`: numbers of actors whose process has ended."""

    def __init__(self, config: RewardConfig, pool: ExecutorPool, dead: set[int], number: int = 0) -> None:
        self.number = number
        self.scorer = Scorer(config, pool, MemoryComponent(config.memory) if config.memory.enabled else None)
        self._dead = dead

    async def call(self, method: str, *arguments: Any) -> Any:
        await asyncio.sleep(0)
        if self.number in self._dead:
            raise ActorGone("killed")
        if method == "remember":
            self.scorer.remember(arguments[0])
            return self.scorer.held(arguments[0])
        if method == "score_batch":
            results = self.scorer.score_batch(arguments[0])
            return Reply(results=results, verified=self.scorer.take_verified(), stats=self.scorer.stats())
        return self.scorer.load(*arguments) if method == "load" else None

    async def progress(self) -> int:
        return self.scorer.progress()

    def kill(self) -> None:
        self._dead.add(self.number)
