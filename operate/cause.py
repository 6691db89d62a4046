"""What about a completion makes its gradient infinite, in words, from its numbers."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

OVERFLOWS = 88.0
"""Nats whose exponential a float32 cannot hold."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Numbers:
    """Of one completion; log-probabilities are of its tokens, nats."""

    advantage: float
    engine: Sequence[float]
    policy: Sequence[float]
    old: Sequence[float] | None
    """None: the policy is compared with itself."""
    reference: Sequence[float] | None
    """None: there is no KL term in the loss."""
    unbounded: bool = True
    """Whether the loss has no bound on the ratio where the advantage is negative (where it is not, all have)."""
    exponential_kl: bool = True
    """Whether the KL term grows with the exponential of a gap (k3)."""


def cause(numbers: Numbers) -> str:
    """The first of the things that make a loss infinite; which, and where."""
    if not math.isfinite(numbers.advantage):
        return f"cause: its advantage is {numbers.advantage:g}"
    for whose, values in (("engine", numbers.engine), ("policy", numbers.policy), ("old policy", numbers.old or ())):
        place = _first(values, lambda value: not math.isfinite(value))
        if place is not None:
            return f"cause: token {place + 1} has the log-probability {values[place]:g} under the {whose}"
    if numbers.old is not None and numbers.unbounded and numbers.advantage < 0:
        ratios = [new - old for new, old in zip(numbers.policy, numbers.old, strict=True)]
        largest = max(ratios, default=0.0)
        if largest > OVERFLOWS:
            place = ratios.index(largest)
            return f"cause: the ratio of token {place + 1} to the old policy is e^{largest:.0f}"
    if numbers.reference is not None:
        gaps = [there - here for here, there in zip(numbers.policy, numbers.reference, strict=True)]
        most = OVERFLOWS if numbers.exponential_kl else math.inf
        place = _first(gaps, lambda value: not math.isfinite(value) or value > most)
        if place is not None:
            return (
                f"cause: the reference policy gives token {place + 1} e^{gaps[place]:.0f} times the probability: the "
                "KL term"
            )
    return "cause: none of its own numbers is extreme, the gradient overflows on its way through the model"


def _first(values: Sequence[float], holds: Callable[[float], bool]) -> int | None:
    return next((place for place, value in enumerate(values) if holds(value)), None)
