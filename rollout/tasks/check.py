"""Reads the databases of tasks and asks whether their golds count, so that a run meets no task that it cannot score.

The question is the scorer's own (rewards/gold_check.py), under the reward that will score the tasks and on every
instance that will be asked. A gold that does not count is removed from its task and reported; a task without a gold
left is dropped, and so is one of which the infrastructure kept a gold from running: it is reported as "gold
unscorable", never as failing.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from conf.schema.reward import RewardConfig
from rewards.carriers import SqlTask
from rewards.gold_check import FaultKind, GoldCheck
from rewards.sql.executor import ExecutorPool
from rewards.sql.schema import DatabaseUnreadable
from rewards.verdicts import Verdicts
from rollout.carriers import Prompt
from rollout.prompt.renderer import PromptTooLong
from rollout.tasks.carriers import Dropped, DropReason

_REASONS: dict[FaultKind, DropReason] = {
    "fails": "gold fails",
    "over budget": "gold over budget",
    "order-dependent": "gold order-dependent",
    "unscorable": "gold unscorable",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    tasks: tuple[SqlTask, ...]
    """Those that remain, in their order, with the golds that run."""
    dropped: tuple[Dropped, ...]
    """Tasks left out, and single golds removed from tasks that remain (id "<task id> gold <number>")."""


def check_golds(tasks: Sequence[SqlTask], *, pool: ExecutorPool, reward: RewardConfig) -> Checked:
    """The tasks that `reward` can score, with the golds that count; equal golds run once."""
    kept: list[SqlTask] = []
    dropped: list[Dropped] = []
    for task, check in zip(tasks, Verdicts(reward, pool).check_many(tasks), strict=True):
        if not check.usable:
            dropped.append(_dropped(task, check))
            continue
        dropped += _removed(task, check)
        counting = (sql for sql, fault in zip(task.gold_sqls, check.faults, strict=True) if fault is None)
        kept.append(replace(task, gold_sqls=tuple(counting)))
    return Checked(tasks=tuple(kept), dropped=tuple(dropped))


def check_databases(tasks: Sequence[SqlTask], read: Callable[[str], object]) -> Checked:
    """Leaves out the tasks whose primary instance `read` refuses with DatabaseUnreadable; it is called once a file."""
    faults: dict[str, str | None] = {}
    for file in dict.fromkeys(task.databases[0] for task in tasks):
        try:
            read(file)
            faults[file] = None
        except DatabaseUnreadable as error:
            faults[file] = str(error)
    readable = tuple(task for task in tasks if faults[task.databases[0]] is None)
    dropped = (
        Dropped(id=task.id, reason="database unreadable", detail=detail)
        for task in tasks
        if (detail := faults[task.databases[0]]) is not None
    )
    return Checked(tasks=readable, dropped=tuple(dropped))


def check_prompts(tasks: Sequence[SqlTask], render: Callable[[SqlTask], Prompt]) -> tuple[list[Prompt], list[Dropped]]:
    """The prompts of the tasks that fit their budget, and the tasks that do not."""
    prompts: list[Prompt] = []
    dropped: list[Dropped] = []
    for task in tasks:
        try:
            prompts.append(render(task))
        except PromptTooLong as error:
            dropped.append(Dropped(id=task.id, reason="prompt too long", detail=str(error)))
    return prompts, dropped


def _dropped(task: SqlTask, check: GoldCheck) -> Dropped:
    """A task that cannot be scored, with the first gold's reason that explains it."""
    faults = [fault for fault in check.faults if fault is not None]
    if check.infrastructure:
        faults = [fault for fault in faults if fault.kind == "unscorable"]
    if not faults:  # not even asked
        return Dropped(id=task.id, reason="gold unscorable", detail=check.reason or "")
    return Dropped(id=task.id, reason=_REASONS[faults[0].kind], detail=faults[0].detail)


def _removed(task: SqlTask, check: GoldCheck) -> Iterator[Dropped]:
    """The golds that a task loses."""
    for number, fault in enumerate(check.faults, start=1):
        if fault is not None:
            yield Dropped(id=f"{task.id} gold {number}", reason=_REASONS[fault.kind], detail=fault.detail)
