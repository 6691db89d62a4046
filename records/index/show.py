"""The run index as text: a list, one run in full, runs side by side."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from conf.terminal import aligned
from records.index.index import RunRow
from records.run_folder import is_open

LISTED = ("id", "name", "outcome", "steps", "greedy", "voting", "code", "started")


def state(row: RunRow) -> str:
    """The outcome; a run that says "running" while no process of this machine holds its folder is "no longer running".

    On a shared disk the lock of another machine may be invisible.
    """
    return row.outcome if row.outcome != "running" or is_open(Path(row.folder)) else "no longer running"


def listing(rows: Sequence[RunRow]) -> str:
    """A line a run."""
    table = [LISTED, *((*_line(row),) for row in rows)]
    return _lines(table)


def _line(row: RunRow) -> tuple[str, ...]:
    greedy, voting = _percent(row.scores.get("greedy_ex_after")), _percent(row.scores.get("vav_ex_after"))
    return row.id, row.name, state(row), str(row.steps), greedy, voting, row.code, row.started[:16]


def full(row: RunRow) -> str:
    """Everything that the index knows of one run."""
    pairs: list[tuple[str, Any]] = [
        ("id", row.id),
        ("name", row.name),
        ("folder", row.folder),
        ("outcome", state(row)),
        ("error", row.error),
        ("job", row.job),
        ("code", row.code),
        ("parent", row.parent),
        ("started", row.started),
        ("ended", row.ended),
        ("steps", row.steps),
        ("wall_s", row.wall_s),
    ]
    pairs += [(f"data.{name}", f"{split['tasks']} tasks, {split['sha256']}") for name, split in row.data.items()]
    pairs += list(row.scores.items())
    pairs += list(flat(row.config))
    return _lines([(name, str(value)) for name, value in pairs if value is not None])


def comparison(rows: Sequence[RunRow]) -> str:
    """Results of all, then every setting in which they differ."""
    table: list[tuple[str, ...]] = [("", *(f"{row.name} ({row.id})" for row in rows))]
    table.append(("outcome", *(state(row) for row in rows)))
    table.append(("steps", *(str(row.steps) for row in rows)))
    names = dict.fromkeys(name for row in rows for name in row.scores)
    table += [(name, *(_number(row.scores.get(name)) for row in rows)) for name in names]
    facts: list[Mapping[str, Any]] = [
        {
            "code": row.code,
            "parent": row.parent,
            **{f"data.{name}": split["sha256"] for name, split in row.data.items()},
            **dict(flat(row.config)),
        }
        for row in rows
    ]
    for name in dict.fromkeys(name for fact in facts for name in fact):
        values = [str(fact.get(name, "-")) for fact in facts]
        if len(set(values)) > 1:
            table.append((name, *values))
    return _lines(table)


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """A nested mapping as dotted names."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _lines(table: Sequence[Sequence[str]]) -> str:
    return "".join(f"{line}\n" for line in aligned(table))
