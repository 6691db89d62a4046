"""Schema as one line a table: `table(column, column, ...)`, for policies with a small token budget."""

from collections.abc import Sequence

from rollout.prompt.described import DescribedColumn, by_table, foreign_keys, quoted


def serialise_compact(columns: Sequence[DescribedColumn]) -> str:
    """A foreign key is marked `column -> table` at its column, where the referenced column is shown too."""
    targets = {(a.table, a.name): b for a, b in foreign_keys(columns)}
    return "\n".join(
        f"{quoted(table)}({', '.join(_entry(c, targets) for c in members)})"
        for table, members in by_table(columns).items()
    )


def _entry(column: DescribedColumn, targets: dict[tuple[str, str], DescribedColumn]) -> str:
    other = targets.get((column.table, column.name))
    text = quoted(column.name) if other is None else f"{quoted(column.name)} -> {quoted(other.table)}"
    return f"{text} {'|'.join(column.examples)}" if column.examples else text
