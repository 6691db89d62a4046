"""What the ranks tell of a step's skipped updates, as one statement on its sequences. Knows no tensor."""

from collections.abc import Sequence
from typing import Protocol

from trainer.carriers import SkippedUpdates, TrainingSequence


class Made(Protocol):
    """trainer/learner/update.py's MadeUpdate."""

    @property
    def applied(self) -> bool | None: ...

    @property
    def old_logprobs(self) -> list[list[float]]: ...


def skipped_updates(
    sequences: Sequence[TrainingSequence], places: Sequence[Sequence[Sequence[int]]], made: Sequence[Sequence[Made]]
) -> SkippedUpdates:
    """`places`: [rank][update] -> indices into `sequences`, as they were divided; `made`: [rank][update]."""
    outcomes = [one.applied for one in made[0]]  # decided alike on every rank
    skipped = tuple(update for update, applied in enumerate(outcomes) if applied is False)
    groups: set[int] = set()
    old: list[tuple[float, ...]] = [()] * len(sequences)
    for rank, updates in enumerate(places):
        for update in skipped:
            groups |= {sequences[i].group_index for i in updates[update]}
            trained = [i for i in updates[update] if not sequences[i].masked]
            told = made[rank][update].old_logprobs
            for index, values in zip(trained, told, strict=True) if told else ():
                old[index] = tuple(values)
    return SkippedUpdates(
        updates=skipped,
        groups=frozenset(groups),
        others_after=bool(skipped) and True in outcomes[skipped[0] :],
        old_logprobs=tuple(old) if any(old) else (),
    )
