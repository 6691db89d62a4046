"""The reward actor: one Scorer with its own executors, made a Ray actor by rewards/seat.py.

It does one thing at a time, in the order of its calls; rewards/client.py decides who calls and how long it waits. The
executors end with the actor's process, however it ends: their stdin closes.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from conf.schema.reward import RewardConfig
from rewards.builder import open_scorer
from rewards.carriers import RewardResult
from rewards.memory_store import VerifiedTrace
from rewards.scorer import ScoreJob, ScorerStats


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """Results of one call, one tuple a job, and the counters after it."""

    results: list[tuple[RewardResult, ...]]
    stats: ScorerStats


class RewardActor:
    """Plain class, for Ray to wrap."""

    def __init__(self, config: RewardConfig) -> None:
        self._resources = ExitStack()
        self._scorer = self._resources.enter_context(open_scorer(config))

    def score_batch(self, jobs: Sequence[ScoreJob]) -> Reply:
        """Scores several groups. Raises what the infrastructure raises."""
        return Reply(results=self._scorer.score_batch(jobs), stats=self._scorer.stats())

    def take_verified(self) -> list[VerifiedTrace]:
        """Traces verified since the last call, which no memory holds yet."""
        return self._scorer.take_verified()

    def remember(self, traces: Sequence[VerifiedTrace]) -> int:
        """Adds verified traces to the memory; the number it holds afterwards."""
        return self._scorer.remember(traces)

    def save(self, path: str) -> bool:
        """Writes the memory to a file; False, and no file, where the component is off."""
        return self._scorer.save(path)

    def load(self, path: str) -> None:
        """Replaces the memory by a file's; nothing where the component is off."""
        self._scorer.load(path)

    def close(self) -> None:
        """Ends the executors."""
        self._resources.close()
