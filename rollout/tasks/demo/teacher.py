"""A teacher that makes the same kinds of mistake again and again.

For each kind of mistake that a question invites, a hash of the question decides whether the teacher makes it. A
policy that imitates this teacher gives the right answer sizable probability but rarely the largest one: reinforcement
learning has something to gain, and what it gains can be predicted.
"""

import hashlib
from collections.abc import Callable
from dataclasses import replace

from rollout.tasks.carriers import Trace
from rollout.tasks.demo.spec import Condition, Operator, Spec, question, reasoning, sql

MISTAKE_SHARE = 0.58
"""Share of the questions inviting a mistake on which the teacher makes it."""

_STRICT: dict[Operator, Operator] = {">=": ">", "<=": "<"}


def _strict_bounds(spec: Spec) -> Spec:
    return replace(spec, conditions=tuple(_strict_bound(c) for c in spec.conditions))


def _strict_bound(condition: Condition) -> Condition:
    return replace(condition, operator=_STRICT.get(condition.operator, condition.operator))


def _sums_averages(spec: Spec) -> Spec:
    return replace(spec, aggregate="sum") if spec.aggregate == "avg" else spec


def _sorts_upwards(spec: Spec) -> Spec:
    return replace(spec, descending=False)


def _forgets_negation(spec: Spec) -> Spec:
    return replace(spec, negated=False)


MISTAKES: dict[str, Callable[[Spec], Spec]] = {
    "strict_bound": _strict_bounds,
    "sum_for_average": _sums_averages,
    "ascending_for_descending": _sorts_upwards,
    "in_for_not_in": _forgets_negation,
}


def invited_mistakes(spec: Spec) -> tuple[str, ...]:
    """Names of the mistakes that would change this question's SQL."""
    right = sql(spec)
    return tuple(name for name, make in MISTAKES.items() if sql(make(spec)) != right)


def answer(spec: Spec, seed: int) -> Trace:
    """The teacher's answer: reproducible, and wrong for a fixed part of the questions."""
    text = question(spec)
    for name in invited_mistakes(spec):
        if _draw(f"{seed}/{name}/{text}") < MISTAKE_SHARE:
            spec = MISTAKES[name](spec)
    return Trace(reasoning=reasoning(spec), sql=sql(spec))


def _draw(key: str) -> float:
    """A number in [0, 1) that depends on the key alone."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
