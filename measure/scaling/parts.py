"""Stand-ins for reward server, learner and records at the pipeline's own Protocols."""

import asyncio
from collections.abc import Sequence

from measure.scaling.cores import Job
from measure.scaling.costs import Costs
from measure.scaling.engine import SimulatedPool
from rewards.carriers import RewardResult, SqlTask
from trainer.carriers import SkippedUpdates, TrainingSequence

RIGHT = RewardResult(status="scored", total=1.0, correct=True)
WRONG = RewardResult(status="scored", total=0.0)


class SimulatedScoring:
    """A group at a time on each scorer; a fixed share of the tasks gets equal rewards, evenly spread."""

    def __init__(self, costs: Costs) -> None:
        self._costs = costs
        self._free = asyncio.Semaphore(costs.scorers)

    async def score(
        self, task: SqlTask, completions: Sequence[str], *, lengths: Sequence[float] | None = None
    ) -> tuple[RewardResult, ...]:
        async with self._free:
            await asyncio.sleep(self._costs.score_group_s)
        number, share = int(task.id), self._costs.equal_share
        equal = int((number + 1) * share) > int(number * share)
        return tuple(RIGHT if equal or place % 2 else WRONG for place in range(len(completions)))


class SimulatedPolicy:
    """The learner with its way to the engines; also the reward memory and the task history, which cost nothing."""

    def __init__(self, costs: Costs, learner: Job, pool: SimulatedPool, completions: int) -> None:
        self._costs, self._learner, self._pool = costs, learner, pool
        self._completions = completions

    async def train(self, sequences: Sequence[TrainingSequence]) -> dict[str, float]:
        # The driver works on a step's completions while nothing else of the step happens.
        await asyncio.sleep(self._costs.completion_s * self._completions)
        tokens = sum(len(sequence.completion_ids) for sequence in sequences if not sequence.masked)
        await self._learner.work(self._costs.train_fixed_s + self._costs.train_token_s * tokens)
        return {}

    async def skipped(self, sequences: Sequence[TrainingSequence]) -> SkippedUpdates:
        return SkippedUpdates()

    async def reference_kl(self, sequences: Sequence[TrainingSequence]) -> list[float]:
        """Its forward pass is part of the training time."""
        return [0.0] * len(sequences)

    async def synchronise(self, version: int) -> dict[str, float]:
        await self._pool.update(version, self._costs.sync_s)
        return {}

    async def commit(self) -> None:
        return

    def record(self, position: int, correct: Sequence[bool]) -> None:
        return
