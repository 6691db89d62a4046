"""What loading the data yields: tasks by split, traces to imitate, and everything left out with its reason."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from conf.errors import QuorumError
from rewards.carriers import SqlTask

DropReason = Literal[
    "database missing",
    "database unreadable",
    "gold fails",
    "gold order-dependent",
    "gold over budget",
    "gold unscorable",
    "prompt too long",
    "trace too long",
]
"""database unreadable: the primary instance, no schema can be shown. gold order-dependent: its rows depend on scan
order, or that could not be found out within the budget, under a reward that does not score against such golds. gold
unscorable: the executor could not be asked (another instance unreadable, executor lost twice); never the query's
doing."""


class DataError(QuorumError):
    """A data file that cannot be used; the message names the file, the place in it and what to write instead."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dropped:
    """One task, or one of a task's gold queries, that is left out."""

    id: str
    reason: DropReason
    detail: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """An answer to imitate in the warm-up."""

    reasoning: str
    """Text between <think> and </think>; '' when the trace has none."""
    sql: str


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskSet:
    """Tasks in the order of their source."""

    warmup: tuple[SqlTask, ...]
    """Imitated in the warm-up; the same tasks as `train` for sources that publish no separate split."""
    train: tuple[SqlTask, ...]
    heldout: tuple[SqlTask, ...]
    dropped: tuple[Dropped, ...] = ()
    traces: Mapping[str, Trace] = field(default_factory=dict)
    """By task id, for warm-up tasks; a task without a trace is imitated through its first gold query."""

    def dropped_counts(self) -> dict[str, int]:
        """Number of dropped entries by reason."""
        return dict(Counter(d.reason for d in self.dropped))
