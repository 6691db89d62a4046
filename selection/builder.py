"""The table of voters: a new voter is one file, one line here, and one name in the schema where it is offered."""

from selection import (
    confidence_weighted,
    first,
    greedy,
    log_probability,
    majority,
    oracle,
    soft_vote,
    value_aware,
    value_aware_conditioned,
)
from selection.candidate import Voter

VOTERS: dict[str, Voter] = {
    "value_aware": value_aware.select,
    "value_aware_conditioned": value_aware_conditioned.select,
    "majority": majority.select,
    "first": first.select,
    "greedy": greedy.select,
    "oracle": oracle.select,
    "soft_vote": soft_vote.select,
    "log_probability": log_probability.select,
    "confidence_weighted": confidence_weighted.select,
}
NEEDS_LOGPROBS = frozenset(("log_probability", "confidence_weighted"))
"""Voters that only make sense where candidates come with log-probabilities."""
