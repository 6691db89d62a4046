"""What travels inside the trainer: scored groups and learner inputs."""

from dataclasses import dataclass

from rewards.carriers import RewardResult
from rollout.carriers import Group


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredGroup:
    """A group with one reward result for each completion, in the same order."""

    group: Group
    results: tuple[RewardResult, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingSequence:
    """One completion as the learner sees it; plain lists, so that it crosses processes cheaply."""

    group_index: int
    """Sequences of one group share a prompt and this number."""
    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    """The engine's sampling log-probabilities, one for each completion token."""
    advantage: float
    lags: tuple[tuple[int, int], ...] = ()
    """(first token offset, policy versions behind the one that is trained), in rising order; empty: 0 throughout."""
    masked: bool = False
    """Left out of the loss (unscorable, or truncated where algo.mask_truncated)."""
    counted: bool = True
    """Among the sequences that a loss divides by, even when masked."""
