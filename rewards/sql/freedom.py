"""What golds leave open, found out by executing variants of them.

First the ties of their own ORDER BY (ties.py), then whether they hang on any other order (order.py): what a variant
changes, beyond what the gold accepts by then, SQL does not determine. Each execution is compared when it comes and is
not kept. A variant that fails where the gold runs leaves the question open; only one that the infrastructure lost is
worth another try.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from conf.schema.data import Denotation
from conf.schema.reward import BudgetConfig
from rewards.carriers import Execution
from rewards.sql.collations import collates
from rewards.sql.executor import ExecutorPool
from rewards.sql.gold_answer import Gold
from rewards.sql.order import OrderUnknown, order_probes
from rewards.sql.query import Query
from rewards.sql.ties import KeysUnknown, TieQuery, Ties, find_ties, tie_query, ties_bytes

Shown = Literal["same", "moved", "unknown", "lost"]
"""What a variant shows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a gold was executed, and how it is compared."""

    databases: Sequence[str]
    policy: Denotation


@dataclass(kw_only=True, slots=True)
class _Case:
    """One gold that ran, with what has been found out."""

    gold: Gold
    place: Place
    ties: list[Ties | None]
    shown: set[Shown] = field(default_factory=set)


def examined(
    golds: Sequence[Gold], places: Sequence[Place], pool: ExecutorPool, budget: BudgetConfig, room: int
) -> list[Gold] | None:
    """The golds with their ties and flags; those that are unusable as they are. None where the rows that tie take more
    than `room` bytes."""
    cases = [
        _Case(gold=gold, place=place, ties=[None] * len(place.databases))
        for gold, place in zip(golds, places, strict=True)
    ]
    running = [case for case in cases if case.gold.usable]
    if not _find_ties(running, pool, budget, room):
        return None
    for case in running:
        if any(ties is not None for ties in case.ties):
            case.gold = replace(case.gold, ties=tuple(case.ties))
    _probe(running, pool, budget)
    return [_flagged(case) for case in cases]


def _flagged(case: _Case) -> Gold:
    moved, lost = "moved" in case.shown, "lost" in case.shown
    unknown = not moved and (lost or "unknown" in case.shown)
    return replace(case.gold, order_dependent=moved, order_unknown=unknown, order_lost=unknown and lost)


def _find_ties(cases: Sequence[_Case], pool: ExecutorPool, budget: BudgetConfig, room: int) -> bool:
    """Asks for the ties of every case that may have some; whether they take no more than `room` bytes."""
    asked: list[tuple[_Case, int, TieQuery]] = []
    for case in cases:
        for instance, execution in enumerate(case.gold.executions):
            rows, gold = execution.rows, case.gold
            if not rows:
                continue
            try:
                query = tie_query(gold.sql, len(rows[0]), len(rows), ordered=gold.ordered, with_keys=gold.inexact)
            except KeysUnknown:
                case.shown.add("unknown")
                continue
            if query is not None:
                asked.append((case, instance, query))
    held = _Room(room)
    refused = _ask(asked, 0, pool, budget, held)
    _ask([ask for ask, again in zip(asked, refused, strict=True) if again], 1, pool, budget, held)
    return held.left >= 0


@dataclass(slots=True)
class _Room:
    """Bytes that the ties found from now on may take."""

    left: int


def _ask(
    asked: Sequence[tuple[_Case, int, TieQuery]], reading: int, pool: ExecutorPool, budget: BudgetConfig, room: _Room
) -> list[bool]:
    """Takes the ties that one reading of each query shows, while there is room; for each whether SQLite refused it and
    another is left."""

    def take(index: int, execution: Execution) -> bool:
        case, instance, query = asked[index]
        if execution.status == "error" and reading + 1 < len(query.texts):
            return True
        case.shown.add(_take_ties(case, instance, query, execution))
        room.left -= ties_bytes(case.ties[instance])
        if room.left < 0:
            case.ties[instance] = None
        return False

    queries = [
        Query(database=case.place.databases[instance], sql=query.texts[reading], budget=budget)
        for case, instance, query in asked
    ]
    return pool.each(queries, take)


def _take_ties(case: _Case, instance: int, query: TieQuery, execution: Execution) -> Shown:
    if execution.status != "ok":
        return "lost" if execution.status == "unscorable" else "unknown"
    gold = case.gold
    try:
        case.ties[instance] = find_ties(query, gold.executions[instance].rows, execution.rows, inexact=gold.inexact)
    except KeysUnknown:
        return "unknown"
    return "same"


def _probe(cases: Sequence[_Case], pool: ExecutorPool, budget: BudgetConfig) -> None:
    """Runs every case with its scans turned round and in its variants, on every instance."""
    asked: list[tuple[_Case, int]] = []
    queries: list[Query] = []
    for case in cases:
        try:
            texts = order_probes(
                case.gold.sql,
                sorted_known=not case.shown & {"unknown", "lost"},
                collated=collates(case.place.databases[0]),
            )
        except OrderUnknown:
            case.shown.add("unknown")
            texts = ()
        for instance, path in enumerate(case.place.databases):
            queries.append(Query(database=path, sql=case.gold.sql, budget=budget, reverse_unordered=True))
            queries += [Query(database=path, sql=text, budget=budget) for text in texts]
            asked += [(case, instance)] * (1 + len(texts))

    def take(index: int, execution: Execution) -> None:
        case, instance = asked[index]
        if execution.status != "ok":
            case.shown.add("lost" if execution.status == "unscorable" else "unknown")
        elif "moved" not in case.shown and not case.gold.accepts(instance, execution, policy=case.place.policy):
            case.shown.add("moved")

    pool.each(queries, take)
