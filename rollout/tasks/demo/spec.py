"""A demo question in structured form, and its three renderings: gold SQL, English, and a short line of reasoning.

Working on the structure, not on text, is what lets the teacher make a precise mistake and the generator compare a
question with its near misses.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from rollout.tasks.demo.domains import Domain, Entity

Kind = Literal["list", "aggregate", "top", "group", "join", "join_aggregate", "member"]
Operator = Literal["=", ">", "<", ">=", "<="]
Aggregate = Literal["count", "avg", "max", "min", "sum"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Condition:
    column: str
    operator: Operator
    value: int | str


@dataclass(frozen=True, kw_only=True, slots=True)
class Spec:
    """One question. Which fields matter depends on `kind`; `conditions` are on the table named in `filtered`."""

    kind: Kind
    domain: Domain
    entity: Entity
    """The table that the answer comes from."""
    filtered: Entity
    """The table that the conditions are about: `entity`, its parent (join) or its child (member)."""
    conditions: tuple[Condition, ...] = ()
    number: str = ""
    """Integer column that is aggregated or sorted by."""
    aggregate: Aggregate = "count"
    group: str = ""
    descending: bool = True
    limit: int = 1
    negated: bool = False
    style: int = 0
    """Which of the two phrasings the question uses."""


_OPERATOR_WORDS: dict[Operator, tuple[str, str]] = {
    "=": ("equal to", "of exactly"),
    ">": ("more than", "above"),
    "<": ("less than", "below"),
    ">=": ("at least", "no less than"),
    "<=": ("at most", "no more than"),
}
_AGGREGATE_WORDS: dict[Aggregate, tuple[str, str]] = {
    "count": ("number", "count"),
    "avg": ("average", "mean"),
    "max": ("maximum", "largest"),
    "min": ("minimum", "smallest"),
    "sum": ("total", "summed"),
}
_DIRECTION_WORDS = {True: ("highest", "top"), False: ("lowest", "bottom")}


def _condition_sql(spec: Spec, *, qualified: bool) -> str:
    if not spec.conditions:
        return ""
    prefix = f"{spec.filtered.table}." if qualified else ""
    terms = [
        f"{prefix}{c.column} {c.operator} " + (f"'{c.value}'" if isinstance(c.value, str) else str(c.value))
        for c in spec.conditions
    ]
    return " WHERE " + " AND ".join(terms)


def _target(spec: Spec, *, qualified: bool) -> str:
    if spec.aggregate == "count":
        return "count(*)"
    return f"{spec.aggregate}({spec.entity.table + '.' if qualified else ''}{spec.number})"


def _joined(spec: Spec) -> str:
    child, parent = spec.entity.table, spec.filtered.table
    return f"FROM {child} JOIN {parent} ON {child}.{spec.filtered.key} = {parent}.{spec.filtered.key}"


_SQL: dict[Kind, Callable[[Spec], str]] = {
    "list": lambda s: f"SELECT {s.entity.label} FROM {s.entity.table}{_condition_sql(s, qualified=False)}",
    "aggregate": lambda s: (
        f"SELECT {_target(s, qualified=False)} FROM {s.entity.table}{_condition_sql(s, qualified=False)}"
    ),
    "top": lambda s: (
        f"SELECT {s.entity.label} FROM {s.entity.table}{_condition_sql(s, qualified=False)}"
        f" ORDER BY {s.number} {'DESC' if s.descending else 'ASC'} LIMIT {s.limit}"
    ),
    "group": lambda s: (
        f"SELECT {s.group}, {_target(s, qualified=False)} FROM {s.entity.table}"
        f"{_condition_sql(s, qualified=False)} GROUP BY {s.group}"
    ),
    "join": lambda s: f"SELECT {s.entity.table}.{s.entity.label} {_joined(s)}{_condition_sql(s, qualified=True)}",
    "join_aggregate": lambda s: f"SELECT {_target(s, qualified=True)} {_joined(s)}{_condition_sql(s, qualified=True)}",
    "member": lambda s: (
        f"SELECT {s.entity.label} FROM {s.entity.table} WHERE {s.entity.key} {'NOT IN' if s.negated else 'IN'}"
        f" (SELECT {s.entity.key} FROM {s.filtered.table}{_condition_sql(s, qualified=False)})"
    ),
}


def sql(spec: Spec) -> str:
    """The query that answers the question."""
    return _SQL[spec.kind](spec)


def _condition_text(spec: Spec) -> str:
    parts = []
    for c in spec.conditions:
        if isinstance(c.value, str):
            parts.append(f"{c.column} {c.value}")
        else:
            parts.append(f"{c.column} {_OPERATOR_WORDS[c.operator][spec.style]} {c.value}")
    return " with " + " and ".join(parts) if parts else ""


def _list_text(s: Spec) -> str:
    what = f"{s.entity.label} of {s.entity.plural}{_condition_text(s)}"
    return f"List the {what}." if s.style == 0 else f"What is the {what}?"


def _aggregate_text(s: Spec) -> str:
    where = _condition_text(s)
    if s.aggregate == "count":
        return (
            f"How many {s.entity.plural} are there{where}?" if s.style == 0 else f"Count the {s.entity.plural}{where}."
        )
    words = _AGGREGATE_WORDS[s.aggregate][s.style]
    lead = "What is the" if s.style == 0 else "Give the"
    end = "?" if s.style == 0 else "."
    return f"{lead} {words} {s.number} of {s.entity.plural}{where}{end}"


def _top_text(s: Spec) -> str:
    words = _DIRECTION_WORDS[s.descending][s.style]
    return f"List the {s.entity.label} of the {s.limit} {s.entity.plural} with the {words} {s.number}{_also(s)}."


def _also(s: Spec) -> str:
    return _condition_text(s).replace(" with ", " among those with ", 1)


def _group_text(s: Spec) -> str:
    words = _AGGREGATE_WORDS[s.aggregate][s.style]
    what = f"{words} of {s.entity.plural}" if s.aggregate == "count" else f"{words} {s.number} of {s.entity.plural}"
    lead = f"For each {s.group}, give the {what}" if s.style == 0 else f"Show the {what} by {s.group}"
    return f"{lead}{_also(s)}."


def _join_text(s: Spec) -> str:
    what = f"{s.entity.label} of {s.entity.plural} whose {s.filtered.table} is one{_condition_text(s)}"
    return f"List the {what}." if s.style == 0 else f"What is the {what}?"


def _join_aggregate_text(s: Spec) -> str:
    words = _AGGREGATE_WORDS[s.aggregate][s.style]
    number = "" if s.aggregate == "count" else f" {s.number}"
    return f"What is the {words}{number} of {s.entity.plural} whose {s.filtered.table} is one{_condition_text(s)}?"


def _member_text(s: Spec) -> str:
    has = "without any" if s.negated else "that have a"
    return f"List the {s.entity.label} of {s.entity.plural} {has} {s.filtered.table}{_condition_text(s)}."


_TEXT: dict[Kind, Callable[[Spec], str]] = {
    "list": _list_text,
    "aggregate": _aggregate_text,
    "top": _top_text,
    "group": _group_text,
    "join": _join_text,
    "join_aggregate": _join_aggregate_text,
    "member": _member_text,
}


def question(spec: Spec) -> str:
    """The English question."""
    return _TEXT[spec.kind](spec)


def reasoning(spec: Spec) -> str:
    """Two short sentences that name the tables and the columns in use."""
    columns = [f"{spec.filtered.table}.{c.column} {c.operator} {c.value}" for c in spec.conditions]
    first = f"The answer comes from table {spec.entity.table}, column {spec.number or spec.entity.label}."
    second = f"It keeps rows where {' and '.join(columns)}." if columns else "It keeps all rows."
    return f"{first} {second}"
