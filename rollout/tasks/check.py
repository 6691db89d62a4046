"""Reads the databases of tasks and runs their gold queries, so that a broken gold is never trained on.

A gold that fails or exceeds its budget is removed from its task and reported; a task without a gold left is dropped.
A gold that the infrastructure kept from running is reported as "gold unscorable", never as failing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from conf.schema.reward import BudgetConfig
from rewards.carriers import ErrorKind, Execution, SqlTask
from rewards.sql.executor import ExecutorPool, Query
from rewards.sql.schema import DatabaseUnreadable
from rollout.carriers import Prompt
from rollout.prompt.renderer import PromptTooLong
from rollout.tasks.carriers import Dropped, DropReason

_OVER_BUDGET: frozenset[ErrorKind] = frozenset(("timeout", "too_large"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    tasks: tuple[SqlTask, ...]
    """Those that remain, in their order, with the golds that run."""
    dropped: tuple[Dropped, ...]
    """Tasks left out, and single golds removed from tasks that remain (id "<task id> gold <number>")."""


def check_golds(
    tasks: Sequence[SqlTask], *, pool: ExecutorPool, budget: BudgetConfig, instances: Literal["primary", "all"]
) -> Checked:
    """Executes every gold on the instances that decide; equal queries run once."""
    queries: dict[tuple[str, str], Query] = {}
    for task in tasks:
        for sql in task.gold_sqls:
            for database in _databases(task, instances):
                queries.setdefault((database, sql), Query(database=database, sql=sql, budget=budget))
    results = dict(zip(queries, pool.run(list(queries.values())), strict=True))
    kept: list[SqlTask] = []
    dropped: list[Dropped] = []
    for task in tasks:
        faults = [
            _fault([results[database, sql] for database in _databases(task, instances)]) for sql in task.gold_sqls
        ]
        running = tuple(sql for sql, fault in zip(task.gold_sqls, faults, strict=True) if fault is None)
        broken = [(number, fault) for number, fault in enumerate(faults, start=1) if fault is not None]
        if running:
            kept.append(task if not broken else replace(task, gold_sqls=running))
            dropped.extend(
                Dropped(id=f"{task.id} gold {number}", reason=reason, detail=detail)
                for number, (reason, detail) in broken
            )
        else:
            reason, detail = broken[0][1]
            dropped.append(Dropped(id=task.id, reason=reason, detail=detail))
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


def _databases(task: SqlTask, instances: Literal["primary", "all"]) -> tuple[str, ...]:
    return task.databases if instances == "all" else task.databases[:1]


def _fault(executions: Sequence[Execution]) -> tuple[DropReason, str] | None:
    """Why a gold cannot be used: the first instance's reason that applies; None when it runs everywhere."""
    for execution in executions:
        if execution.status == "unscorable":
            return "gold unscorable", execution.error or "the executor was lost"
        if execution.status == "error":
            reason: DropReason = "gold over budget" if execution.error_kind in _OVER_BUDGET else "gold fails"
            return reason, execution.error or str(execution.error_kind)
    return None
