"""Whether the engines hold the learner's weights, where a batch cannot tell.

In a run ahead of the learner (pipeline.max_staleness > 0) a batch has few tokens of the version that is trained, mostly
none: the others differ by what was learned since, which hides a wrong update. Then a few short completions are sampled
for the check alone, at the first such step and after at most EVERY steps without a check.
Who waits for whom: the step waits for these completions, which the engines sample beside their other groups, and for
one forward pass of theirs; the pool's limits bound the former, the learner's the latter.
Each request goes to the worker with the least to do: over several checks every worker is heard, in one check not
surely.
"""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from conf.schema.rollout import SamplingConfig
from rollout.carriers import Group, Prompt
from trainer.batch.plan import by_group
from trainer.carriers import TrainingSequence
from trainer.learner.agreement import ENOUGH, check_difference
from trainer.pipeline.producer import GroupSource

EVERY = 10
"""Steps of training between two checks, at most."""
COMPLETIONS = 8
"""Of each request."""
TOKENS = 16
"""Of each completion, at most; many may end earlier."""
ROUNDS = 8
"""Of a request to each worker, at most, until there are enough tokens."""


class Knowing(Protocol):
    """What knows a token's log-probability under the learner's policy."""

    async def logprobs(self, sequences: Sequence[TrainingSequence]) -> list[list[float]]: ...


class FreshCheck:
    """Of one run, from its start or a checkpoint on; all engines hold the learner's weights by then."""

    def __init__(
        self,
        *,
        source: GroupSource,
        policy: Knowing,
        sampling: SamplingConfig,
        updates: int,
        workers: int,
        limit: float,
    ) -> None:
        """`sampling`: of training. `updates`: algo.updates_per_step. `limit`: nats a token."""
        self._source = source
        self._policy = policy
        short = {"max_tokens": min(TOKENS, sampling.max_tokens)}
        self._sampling = sampling.model_copy(update=short)
        self._updates = updates
        self._workers = workers
        self._limit = limit
        self._unchecked = 0
        self._first: int | None = None
        self._seen_an_update = False

    async def before(self, sequences: Sequence[TrainingSequence], prompt: Prompt, *, version: int) -> dict[str, float]:
        """Metrics of the check, or how long it has been put off. `sequences` are about to be trained on, `version` is
        the policy's.

        Raises WrongWeights.
        """
        self._first = version if self._first is None else self._first
        metrics: dict[str, float] = {}
        if tells_itself(sequences, self._updates):
            self._checked(version)
        elif self._unchecked + 1 >= EVERY or not self._seen_an_update:
            difference = await self._difference(prompt, version)
            check_difference(difference, self._limit, of="over tokens sampled for this check")
            metrics["mismatch/after_sync_abs_mean"] = difference
            self._checked(version)
        else:
            self._unchecked += 1
        return metrics | {"mismatch/unchecked_steps": float(self._unchecked)}

    def _checked(self, version: int) -> None:
        self._unchecked = 0
        self._seen_an_update = version != self._first

    async def _difference(self, prompt: Prompt, version: int) -> float:
        """Mean |engine - learner| over at least ENOUGH tokens, unless the policy ends its completions at once."""
        distances: list[float] = []
        for number in range(ROUNDS):
            requests = [
                self._source.generate(
                    prompt, group_id=f"check-{version}.{number}.{worker}", n=COMPLETIONS, sampling=self._sampling
                )
                for worker in range(self._workers)
            ]
            for group in await asyncio.gather(*requests):
                distances += await self._distances(group)
            if len(distances) >= ENOUGH:
                break
        return sum(distances) / len(distances)

    async def _distances(self, group: Group) -> list[float]:
        sequences = [
            TrainingSequence(
                group_index=0,
                prompt_ids=group.prompt.token_ids,
                completion_ids=completion.token_ids,
                logprobs=completion.logprobs,
                advantage=0.0,
            )
            for completion in group.completions
        ]
        found = await self._policy.logprobs(sequences)
        pairs = [(s.logprobs, values) for s, values in zip(sequences, found, strict=True)]
        return [abs(a - b) for ours, theirs in pairs for a, b in zip(ours, theirs, strict=True)]


def tells_itself(sequences: Sequence[TrainingSequence], updates: int) -> bool:
    """Whether the step's first update, before which the learner looks, has enough tokens of the trained version."""
    groups = by_group(sequences)
    for update in range(updates):
        chosen = groups[update * len(groups) // updates : (update + 1) * len(groups) // updates]
        trained = [sequences[i] for members in chosen for i in members if not sequences[i].masked]
        if trained:
            fresh = sum(map(_fresh_tokens, trained))
            return 0 < fresh and fresh >= min(ENOUGH, sum(len(s.completion_ids) for s in trained))
    return False


def _fresh_tokens(sequence: TrainingSequence) -> int:
    spans = sequence.lags or ((0, 0),)
    ends = [*(start for start, _ in spans[1:]), len(sequence.completion_ids)]
    return sum(end - start for (start, lag), end in zip(spans, ends, strict=True) if lag == 0)
