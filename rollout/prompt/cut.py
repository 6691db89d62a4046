"""What prompts leave out of their schemas to meet the budget, and which gold queries need it.

A policy cannot name a column that it is not shown, so a question whose gold needs one is lost in training and counts as
wrong in an evaluation. Nothing here is an error: the user is told, with the setting that mends it.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from conf.terminal import visible
from rewards.sql.identifiers import fold
from rewards.sql.reads import ColumnsRead
from rollout.carriers import Prompt
from rollout.prompt.described import quoted

CUT = "cut_columns.jsonl"
_NAMED = 3
"""Questions that a sentence names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CutPrompt:
    """One question whose prompt shows a part of its schema."""

    id: str
    split: str
    columns: tuple[str, ...]
    """Those left out, `table.column` as SQL needs it."""
    whole_tokens: int
    """Length of the prompt with all columns."""
    golds: int
    golds_that_need_them: tuple[int, ...]
    """Numbers, from 1, of the gold queries that read one of them."""


def cut_prompts(prompts: Sequence[Prompt]) -> tuple[CutPrompt, ...]:
    """The prompts that leave columns out, in their order. Raises DatabaseUnreadable."""
    reads = ColumnsRead()
    cut = [index for index, prompt in enumerate(prompts) if prompt.cut_columns]
    # A database's questions together: its schema is read once.
    found = {i: _cut(prompts[i], reads) for i in sorted(cut, key=lambda i: prompts[i].task.databases[0])}
    return tuple(found[i] for i in cut)


def _cut(prompt: Prompt, reads: ColumnsRead) -> CutPrompt:
    task = prompt.task
    gone = {(fold(table), fold(column)) for table, column in prompt.cut_columns}
    golds = enumerate(task.gold_sqls, start=1)
    return CutPrompt(
        id=task.id,
        split=task.split,
        columns=tuple(f"{quoted(table)}.{quoted(column)}" for table, column in prompt.cut_columns),
        whole_tokens=prompt.whole_tokens,
        golds=len(task.gold_sqls),
        golds_that_need_them=tuple(n for n, sql in golds if gone & (reads.of(task.databases[0], sql) or frozenset())),
    )


def cut_sentence(cut: Sequence[CutPrompt], *, prompts: Sequence[Prompt], of: str, limit: int, file: Path) -> str:
    """What to tell of `prompts`, of which `cut` leave columns out for prompt.max_tokens=`limit`; `file` lists them all.

    >>> "3 of 4 training prompts leave columns of their schema out for prompt.max_tokens=192 (whole, the longest takes
    310), and 1 of 4 golds needs such a column: d1, d2, d3 (runs/x/cut_columns.jsonl)"
    """
    needing = sum(len(one.golds_that_need_them) for one in cut)
    golds = sum(len(prompt.task.gold_sqls) for prompt in prompts)
    # The questions that are lost first.
    first = sorted(cut, key=lambda one: not one.golds_that_need_them)[:_NAMED]
    more = ", ..." if len(cut) > _NAMED else ""
    return visible(
        f"{len(cut)} of {len(prompts)} {of} prompts leave columns of their schema out for prompt.max_tokens={limit} "
        f"(whole, the longest takes {max(one.whole_tokens for one in cut)}), and {needing} of {golds} golds "
        f"{'needs' if needing == 1 else 'need'} such a column: {', '.join(one.id for one in first)}{more} ({file})"
    )


def cut_lines(cut: Sequence[CutPrompt]) -> str:
    """JSON lines, one a prompt."""
    return "".join(json.dumps(asdict(one)) + "\n" for one in cut)
