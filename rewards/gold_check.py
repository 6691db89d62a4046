"""Which golds of a task count under a run's reward, and whether the task can be scored at all.

The one rule of scoring and of the check before a run. Pure: the golds have been executed (rewards/sql/gold.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rewards.carriers import ErrorKind
from rewards.sql.gold_answer import Gold

FaultKind = Literal["fails", "over budget", "order-dependent", "unscorable"]
"""unscorable: the infrastructure kept the gold, or a query that shows whether its rows depend on scan order, from
running. The other three are the gold's own."""
OrderDependent = Literal["score", "unscorable"]
"""ExecutionReward.order_dependent_gold."""
_OVER_BUDGET: frozenset[ErrorKind | None] = frozenset(("timeout", "too_large"))


@dataclass(frozen=True, kw_only=True, slots=True)
class GoldFault:
    """Why one gold does not count."""

    kind: FaultKind
    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class GoldCheck:
    """Whether a task can be scored."""

    usable: bool
    reason: str | None = None
    order_dependent: bool = False
    order_unknown: bool = False
    """Whether its rows depend on an open order cannot be found out from this query and these databases."""
    infrastructure: bool = False
    """Not usable through no fault of the gold: worth another try."""
    faults: tuple[GoldFault | None, ...] = ()
    """One for each gold, None for those that count; empty where no gold could be asked."""


def checked(golds: Sequence[Gold], order_dependent: OrderDependent) -> tuple[GoldCheck, list[Gold]]:
    """The check of a task's golds, and those that count."""
    faults = tuple(_fault(gold, order_dependent) for gold in golds)
    counting = [gold for gold, fault in zip(golds, faults, strict=True) if fault is None]
    # What is wrong by the golds that ran may be right by the one that was lost.
    lost = next((fault for fault in faults if fault is not None and fault.kind == "unscorable"), None)
    if lost is not None:
        return GoldCheck(usable=False, reason=f"gold: {lost.detail}", infrastructure=True, faults=faults), []
    shaky = any(gold.usable and gold.order_dependent for gold in golds)
    unknown = any(gold.usable and gold.order_unknown for gold in golds)
    if not counting:
        # Where some golds run and others fail, those that run have the reason worth knowing.
        fault = next((f for f in faults if f is not None and f.kind == "order-dependent"), faults[0])
        assert fault is not None
        return GoldCheck(
            usable=False, reason=f"gold: {fault.detail}", order_dependent=shaky, order_unknown=unknown, faults=faults
        ), []
    scored = order_dependent == "score"
    return GoldCheck(
        usable=True, order_dependent=shaky and scored, order_unknown=unknown and scored, faults=faults
    ), counting


def _fault(gold: Gold, order_dependent: OrderDependent) -> GoldFault | None:
    broken = next((execution for execution in gold.executions if execution.lost), None)
    broken = broken or next((execution for execution in gold.executions if execution.status != "ok"), None)
    if broken is not None:
        kind: FaultKind = "over budget" if broken.error_kind in _OVER_BUDGET else "fails"
        return GoldFault(kind="unscorable" if broken.lost else kind, detail=broken.error or str(broken.error_kind))
    if order_dependent == "score":
        return None
    if gold.order_dependent:
        return GoldFault(kind="order-dependent", detail="its rows depend on scan order")
    if gold.order_lost:
        return GoldFault(kind="unscorable", detail="whether its rows depend on scan order could not be found out")
    if gold.order_unknown:
        return GoldFault(kind="order-dependent", detail="whether its rows depend on scan order cannot be found out")
    return None
