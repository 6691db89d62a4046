"""Counting from ledgers what a fault has cost: groups lost, groups trained twice.

A ledger says for each optimizer step which groups were trained on and which were dropped, and a group's id begins with
its position in the task stream. A disturbed run is held against an undisturbed one of the same seed: both must have
consumed the same tasks at the same positions, each once.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from records.files import read_rows

NOT_CONSUMED = "stale"
"""Reason of a dropped group that is generated again at its position."""
LOST = "unscorable"
"""Reason of a group that the infrastructure did not score: its task has taught nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Consumed:
    """One group that used up its position."""

    step: int
    position: int
    task: str
    trained: bool
    unscorable: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    groups_lost: int
    """Positions of the undisturbed run that this one did not consume, consumed with another task or could not score."""
    groups_trained_twice: int
    """Surplus trainings of positions."""


def read_ledger(file: Path) -> list[Consumed]:
    """What a run has consumed, in order; nothing where there is no ledger yet."""
    return parse(read_rows(file))


def parse(rows: Iterable[dict]) -> list[Consumed]:
    """The rows of a ledger.jsonl."""
    found = []
    for row in rows:
        for group, task, _ in row["trained"]:
            found.append(Consumed(step=row["step"], position=_position(group), task=task, trained=True))
        for group, task, reason in row["dropped"]:
            if reason != NOT_CONSUMED:
                found.append(
                    Consumed(
                        step=row["step"],
                        position=_position(group),
                        task=task,
                        trained=False,
                        unscorable=reason == LOST,
                    )
                )
    return found


def account(undisturbed: Sequence[Consumed], disturbed: Sequence[Consumed], *, steps: int) -> Account:
    """Compares two runs of one seed over their first `steps` optimizer steps."""
    expected = {(entry.position, entry.task) for entry in undisturbed if entry.step <= steps and not entry.unscorable}
    entries = [entry for entry in disturbed if entry.step <= steps]
    had = {(entry.position, entry.task) for entry in entries if not entry.unscorable}
    trained = Counter(entry.position for entry in entries if entry.trained)
    return Account(
        groups_lost=len(expected - had),
        groups_trained_twice=sum(count - 1 for count in trained.values()),
    )


def _position(group_id: str) -> int:
    return int(group_id.partition(".")[0])
