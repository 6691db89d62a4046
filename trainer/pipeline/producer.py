"""One stream position's way: task -> prompt -> completions -> rewards.

Scoring starts as soon as a group is generated, so it overlaps the generation of the others. Retries of lost workers and
reward actors happen inside the pool and the client; what reaches this module as an exception ends the run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from conf.schema.rollout import SamplingConfig
from rewards.carriers import RewardResult, SqlTask
from rollout.carriers import Group, Prompt, ScoredGroup
from trainer.pipeline.clock import now


class GroupSource(Protocol):
    """What generates a group; the rollout pool."""

    async def generate(self, prompt: Prompt, *, group_id: str, n: int, sampling: SamplingConfig) -> Group: ...


class Scoring(Protocol):
    """What scores a group; the reward client."""

    async def score(
        self, task: SqlTask, completions: Sequence[str], *, lengths: Sequence[float] | None = None
    ) -> tuple[RewardResult, ...]:
        """`lengths`: share of the token budget that each completion used; only a length penalty asks for it."""
        ...


class PromptAt(Protocol):
    """The rendered prompt at a position of the task stream."""

    def __call__(self, position: int) -> Prompt: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Produced:
    """A scored group with the moments it was made, in seconds of the event loop's clock."""

    position: int
    scored: ScoredGroup
    started: float
    generated: float
    finished: float

    @property
    def oldest_version(self) -> int:
        return self.scored.group.oldest_version


class Producer:
    def __init__(
        self, *, prompt_at: PromptAt, source: GroupSource, scoring: Scoring, group_size: int, sampling: SamplingConfig
    ) -> None:
        self._prompt_at = prompt_at
        self._source = source
        self._scoring = scoring
        self._group_size = group_size
        self._sampling = sampling
        self.generating: set[int] = set()
        self.scoring: set[int] = set()

    async def produce(self, position: int, attempt: int) -> Produced:
        """Generates and scores the group at `position`; `attempt` counts regenerations of stale groups from 0."""
        prompt = self._prompt_at(position)
        started = now()
        self.generating.add(position)
        try:
            group = await self._source.generate(
                prompt, group_id=f"{position}.{attempt}", n=self._group_size, sampling=self._sampling
            )
        finally:
            self.generating.discard(position)
        generated = now()
        self.scoring.add(position)
        try:
            lengths = [len(c.token_ids) / self._sampling.max_tokens for c in group.completions]
            results = await self._scoring.score(prompt.task, group.answers, lengths=lengths)
        finally:
            self.scoring.discard(position)
        scored = ScoredGroup(group=group, results=results)
        return Produced(position=position, scored=scored, started=started, generated=generated, finished=now())
