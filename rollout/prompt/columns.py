"""Schema as table.column lines with types and example values, then the foreign keys: the form FINER-SQL uses."""

from collections.abc import Sequence

from rollout.prompt.described import DescribedColumn, foreign_keys, quoted


def serialise_columns(columns: Sequence[DescribedColumn]) -> str:
    """One line a column; `table.column = other.column` lines for the foreign keys whose two ends are shown."""
    lines = [_line(column) for column in columns]
    lines.extend(f"{_name(a)} = {_name(b)}" for a, b in foreign_keys(columns))
    return "\n".join(lines)


def _name(column: DescribedColumn) -> str:
    return f"{quoted(column.table)}.{quoted(column.name)}"


def _line(column: DescribedColumn) -> str:
    facts = [column.type.lower()] if column.type else []
    if column.primary_key:
        facts.append("primary key")
    if column.examples:
        facts.append(f"examples {', '.join(column.examples)}")
    return f"{_name(column)}: {'; '.join(facts)}" if facts else _name(column)
