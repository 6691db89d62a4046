"""What travels from the engines to whoever trains on it or shows it: prompts, completions, groups, scored groups."""

import math
from dataclasses import dataclass
from typing import Literal

from rewards.carriers import RewardResult, SqlTask
from rollout.errors import LogprobsDamaged


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """A task rendered for the policy."""

    task: SqlTask
    text: str
    """Chat-rendered text, as the policy reads it."""
    token_ids: tuple[int, ...]
    dropped_columns: int = 0
    """Columns left out of the schema to meet the token budget."""
    cut_columns: tuple[tuple[str, str], ...] = ()
    """Those columns, (table, column) in the schema's order."""
    whole_tokens: int = 0
    """Tokens of the prompt with every column."""
    opened: str = ""
    """What the prompt has written of the answer: "<think>" where the model's chat template ends in an open one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """One sampled answer."""

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    """Natural-log sampling probability of each token, same length as token_ids."""
    version_spans: tuple[tuple[int, int], ...]
    """(first token offset, policy version) in rising order; the version holds until the next offset."""
    finish_reason: Literal["stop", "length"]

    @property
    def logprob(self) -> float | None:
        """Natural-log probability of the whole answer; None where its tokens carry none. Raises LogprobsDamaged."""
        if not self.logprobs:
            return None
        total = sum(self.logprobs)
        if not math.isfinite(total):
            raise LogprobsDamaged(
                f"an engine gave an answer the log-probability {total}: the policy's weights are damaged, or its dtype "
                f"is too small for it; the answer begins with {self.text[:80]!r}"
            )
        return total


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """One prompt with its G completions."""

    id: str
    """Unique within the run: "<stream position>.<attempt>"."""
    prompt: Prompt
    completions: tuple[Completion, ...]

    @property
    def answers(self) -> tuple[str, ...]:
        """The completions as they are scored: each with what the prompt has opened before it.

        >>> Prompt(..., opened="<think>"), Completion(text="why</think>SELECT 1", ...)
        '<think>why</think>SELECT 1'
        """
        return tuple(self.prompt.opened + completion.text for completion in self.completions)

    @property
    def oldest_version(self) -> int:
        """Policy version of the oldest token in the group."""
        return min(version for c in self.completions for _, version in c.version_spans)


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredGroup:
    """A group with one reward result for each completion, in the same order."""

    group: Group
    results: tuple[RewardResult, ...]
