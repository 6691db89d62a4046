"""Samples demo questions that are worth asking.

A question is kept only if its answer is not empty and its likely mistakes (see teacher.py) change the rows that
decide it: a bound is the value of a row that passes every other condition, an average is over several rows, a top-k
leaves rows out, and a membership holds for some rows but not for all. Two questions never share their text or their
gold SQL.
"""

import operator
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rollout.tasks.carriers import DataError
from rollout.tasks.demo.databases import Row, table_rows
from rollout.tasks.demo.domains import DOMAINS, Domain, Entity
from rollout.tasks.demo.spec import Aggregate, Condition, Kind, Operator, Spec, question, sql

_BOUNDS: tuple[Operator, ...] = (">", ">", "<", "<", "=", "=", ">=", "<=")
_AGGREGATES: tuple[Aggregate, ...] = ("count", "avg", "max", "min", "sum")
_MAX_REJECTED_IN_A_ROW = 20_000


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """One domain with the rows of its primary instance."""

    domain: Domain
    rows: Mapping[str, Sequence[Row]]
    """By table name."""


def distinct_questions(seed: int, count: int) -> list[Spec]:
    """`count` questions with pairwise different texts and gold SQL, in random order.

    Raises DataError when the templates do not yield so many.
    """
    rng = random.Random(f"questions/{seed}")
    worlds = [
        World(domain=d, rows={e.table: table_rows(d, e, seed=seed, instance=0) for e in (d.parent, d.child)})
        for d in DOMAINS
    ]
    texts: set[str] = set()
    queries: set[str] = set()
    specs: list[Spec] = []
    rejected = 0
    for spec in _endless(rng, worlds):
        text, query = question(spec), sql(spec)
        if text in texts or query in queries:
            rejected += 1
            if rejected > _MAX_REJECTED_IN_A_ROW:
                raise DataError(
                    f"the demo templates yield about {len(specs)} different questions, {count} are asked for: lower "
                    "data.warmup_size, data.train_size or data.heldout_size"
                )
            continue
        rejected = 0
        texts.add(text)
        queries.add(query)
        specs.append(spec)
        if len(specs) == count:
            break
    rng.shuffle(specs)
    return specs


def _endless(rng: random.Random, worlds: Sequence[World]) -> Iterator[Spec]:
    kinds: list[Kind] = [kind for kind, (weight, _) in _SAMPLERS.items() for _ in range(weight)]
    while True:
        spec = _SAMPLERS[rng.choice(kinds)][1](rng, rng.choice(worlds))
        if spec is not None:
            yield spec


def _entity(rng: random.Random, world: World) -> Entity:
    return rng.choice((world.domain.parent, world.domain.child))


_COMPARE: dict[Operator, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
}


def _matching(rows: Sequence[Row], conditions: Sequence[Condition]) -> list[Row]:
    matching = list(rows)
    for condition in conditions:
        column, value = condition.column, condition.value
        # Texts are compared for equality alone, whatever the operator.
        holds = _COMPARE[condition.operator] if isinstance(value, int) else operator.eq
        matching = [row for row in matching if holds(row[column], value)]
    return matching


def _conditions(
    rng: random.Random, entity: Entity, rows: Sequence[Row], *, at_least: int, exclude: str = ""
) -> tuple[Condition, ...]:
    """Up to two conditions, `at_least` of them; the bound is the value of a row that passes the category condition."""
    shape = rng.choice([s for s in ((), ("c",), ("n",), ("n",), ("c", "n"), ("c", "n")) if len(s) >= at_least])
    conditions: list[Condition] = []
    if "c" in shape:
        column = rng.choice([c for c in entity.categories if c != exclude] or list(entity.categories))
        conditions.append(Condition(column=column, operator="=", value=rng.choice(entity.categories[column])))
    if "n" in shape:
        passing = _matching(rows, conditions)
        if passing:
            column = rng.choice(list(entity.numbers))
            conditions.append(Condition(column=column, operator=rng.choice(_BOUNDS), value=rng.choice(passing)[column]))
    return tuple(conditions)


def _list(rng: random.Random, world: World) -> Spec | None:
    entity = _entity(rng, world)
    rows = world.rows[entity.table]
    conditions = _conditions(rng, entity, rows, at_least=1)
    if not _matching(rows, conditions):
        return None
    return Spec(
        kind="list",
        domain=world.domain,
        entity=entity,
        filtered=entity,
        conditions=conditions,
        style=rng.randrange(2),
    )


def _aggregate(rng: random.Random, world: World) -> Spec | None:
    entity = _entity(rng, world)
    rows = world.rows[entity.table]
    conditions = _conditions(rng, entity, rows, at_least=0)
    if len(_matching(rows, conditions)) < 2:
        return None
    return Spec(
        kind="aggregate",
        domain=world.domain,
        entity=entity,
        filtered=entity,
        conditions=conditions,
        number=rng.choice(list(entity.numbers)),
        aggregate=rng.choice(_AGGREGATES),
        style=rng.randrange(2),
    )


def _top(rng: random.Random, world: World) -> Spec | None:
    entity = _entity(rng, world)
    rows = world.rows[entity.table]
    conditions = _conditions(rng, entity, rows, at_least=0)
    limit = rng.randint(2, 5)
    if len(_matching(rows, conditions)) <= limit:
        return None
    return Spec(
        kind="top",
        domain=world.domain,
        entity=entity,
        filtered=entity,
        conditions=conditions,
        number=rng.choice(list(entity.numbers)),
        descending=rng.random() < 0.5,
        limit=limit,
        style=rng.randrange(2),
    )


def _group(rng: random.Random, world: World) -> Spec | None:
    entity = _entity(rng, world)
    group = rng.choice(list(entity.categories))
    rows = world.rows[entity.table]
    conditions = tuple(
        c for c in _conditions(rng, entity, rows, at_least=0, exclude=group) if c.column != group and c.operator != "="
    )
    if len(_matching(rows, conditions)) <= len(entity.categories[group]):
        return None
    return Spec(
        kind="group",
        domain=world.domain,
        entity=entity,
        filtered=entity,
        conditions=conditions,
        number=rng.choice(list(entity.numbers)),
        aggregate=rng.choice(_AGGREGATES),
        group=group,
        style=rng.randrange(2),
    )


def _joined_children(world: World, conditions: Sequence[Condition]) -> list[Row]:
    key = world.domain.parent.key
    parents = {row[key] for row in _matching(world.rows[world.domain.parent.table], conditions)}
    return [row for row in world.rows[world.domain.child.table] if row[key] in parents]


def _join_of(kind: Kind) -> Callable[[random.Random, World], Spec | None]:
    def sample(rng: random.Random, world: World) -> Spec | None:
        parent, child = world.domain.parent, world.domain.child
        conditions = _conditions(rng, parent, world.rows[parent.table], at_least=1)
        if len(_joined_children(world, conditions)) < 2:
            return None
        return Spec(
            kind=kind,
            domain=world.domain,
            entity=child,
            filtered=parent,
            conditions=conditions,
            number=rng.choice(list(child.numbers)) if kind == "join_aggregate" else "",
            aggregate=rng.choice(_AGGREGATES),
            style=rng.randrange(2),
        )

    return sample


def _member(rng: random.Random, world: World) -> Spec | None:
    parent, child = world.domain.parent, world.domain.child
    conditions = _conditions(rng, child, world.rows[child.table], at_least=1)
    having = {row[parent.key] for row in _matching(world.rows[child.table], conditions)}
    if not 0 < len(having) < parent.rows:
        return None
    return Spec(
        kind="member",
        domain=world.domain,
        entity=parent,
        filtered=child,
        conditions=conditions,
        negated=rng.random() < 0.4,
        style=rng.randrange(2),
    )


_SAMPLERS: dict[Kind, tuple[int, Callable[[random.Random, World], Spec | None]]] = {
    "list": (5, _list),
    "aggregate": (5, _aggregate),
    "top": (5, _top),
    "group": (2, _group),
    "join": (2, _join_of("join")),
    "join_aggregate": (2, _join_of("join_aggregate")),
    "member": (3, _member),
}
"""Weight and sampler of each kind; a sampler returns None when its draw is not worth asking."""
