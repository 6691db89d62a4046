"""What travels inside the trainer: scored groups and learner inputs."""

from dataclasses import dataclass


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


@dataclass(frozen=True, kw_only=True, slots=True)
class SkippedUpdates:
    """The updates of one step whose gradient was not finite: nothing was trained on their groups."""

    updates: tuple[int, ...] = ()
    """Places among the step's updates, in rising order."""
    groups: frozenset[int] = frozenset()
    """`group_index` of every sequence that was in one of them."""
    others_after: bool = False
    """An update was made after the first of these: the policy has moved since."""
    old_logprobs: tuple[tuple[float, ...], ...] = ()
    """For each sequence of the step, what the ratio compared its tokens with, nats: empty for a sequence of another
    update, and for all where a step makes one update."""
