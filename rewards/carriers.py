"""What travels into and out of scoring: tasks, query budgets, executions, reward results."""

from dataclasses import dataclass, field
from typing import Literal

ErrorKind = Literal["syntax", "not_a_query", "forbidden", "timeout", "too_large", "runtime"]
"""Why a candidate earned no execution reward; always the candidate's own doing."""

Cause = Literal["data", "policy", "infrastructure"]
"""Whose doing it is that a completion has no reward. data: no gold of its task counts. policy: its own text or query,
which loses a process each time while other work is done. infrastructure: everything else."""

Value = int | float | str | bytes | None
"""One SQLite cell, with its storage class."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SqlTask:
    """One question with its gold answers and the databases that decide it."""

    id: str
    db_id: str
    question: str
    evidence: str = ""
    gold_sqls: tuple[str, ...]
    """Accepted gold queries; a candidate is right if it equals any of them."""
    databases: tuple[str, ...]
    """Database files; the first is the primary instance, the others share its schema."""
    dialect: Literal["sqlite"] = "sqlite"
    denotation: Literal["bird", "spider"] = "bird"
    split: Literal["warmup", "train", "heldout"] = "train"
    difficulty: str | None = None
    format_asked: bool = True
    """False: its prompt asks for no form of the answer, so that there is no format component and no gate."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Execution:
    """What one query did on one database instance."""

    status: Literal["ok", "error", "unscorable"]
    """error: the query's own doing, and known to be. unscorable: nobody knows its result (database missing, executor
    lost twice)."""
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[Value, ...], ...] = ()
    error_kind: ErrorKind | None = None
    error: str | None = None
    vm_steps: int = 0
    """SQLite VM instructions, in units of the progress-handler interval."""
    own_doing: bool = False
    """Of an unscorable one: the query lost its process twice where a harmless query was answered."""

    @property
    def lost(self) -> bool:
        """Whether the infrastructure kept the query from running."""
        return self.status == "unscorable" and not self.own_doing


@dataclass(frozen=True, kw_only=True, slots=True)
class RewardResult:
    """The worth of one completion."""

    status: Literal["scored", "unscorable"]
    total: float | None
    """Combined reward; None when unscorable."""
    components: dict[str, float | None] = field(default_factory=dict)
    """Raw component values by name: format, execution, atomic, memory. None: not computed, because the component is off
    or the completion unscorable; a completion without SQL has 0."""
    sql: str | None = None
    """The extracted query."""
    correct: bool = False
    """Equal to a gold answer on every instance asked for."""
    result_digest: str | None = None
    """Full-length digest of the primary instance's result under the task's denotation; within one call, small results
    that differ in the last bits of sums alone have the same. None when it did not run."""
    result_trivial: bool = False
    """The result is empty, or holds nothing but zeros and NULLs (value-aware voting leaves it out first)."""
    error: str | None = None
    error_kind: ErrorKind | None = None
    flags: tuple[str, ...] = ()
    """Remarks such as "atomic_token_fallback" or "gold_order_dependent"."""
    cause: Cause | None = None
    """Whose doing it is that it is unscorable; None when scored, or when nobody has said."""
    form: str | None = None
    """What is wrong with the form of a completion that holds SQL, where that costs it its total; None otherwise."""

    @property
    def lost(self) -> bool:
        """Whether it is unscorable and neither the data nor the policy is known to have caused that."""
        return self.status == "unscorable" and self.cause not in ("data", "policy")
