"""Schema as CREATE TABLE statements with example values in comments."""

from collections.abc import Sequence

from rollout.prompt.described import DescribedColumn, by_table, foreign_keys, quoted


def serialise_ddl(columns: Sequence[DescribedColumn]) -> str:
    """One statement a table, one line a column; foreign keys whose two ends are shown come last in their table. A view
    is shown as the table that it is for a query, and said to be a view."""
    keys = foreign_keys(columns)
    return "\n".join(
        _statement(table, members, [pair for pair in keys if pair[0].table == table])
        for table, members in by_table(columns).items()
    )


def _statement(
    table: str, members: Sequence[DescribedColumn], keys: Sequence[tuple[DescribedColumn, DescribedColumn]]
) -> str:
    # The comment follows the comma, so that the statement stays valid SQL.
    entries = [(f"  {quoted(c.name)} {c.type}".rstrip(), _comment(c)) for c in members]
    primary = [quoted(c.name) for c in members if c.primary_key]
    if primary:
        entries.append((f"  PRIMARY KEY ({', '.join(primary)})", ""))
    entries.extend(
        (f"  FOREIGN KEY ({quoted(a.name)}) REFERENCES {quoted(b.table)} ({quoted(b.name)})", "") for a, b in keys
    )
    last = len(entries) - 1
    lines = [text + ("," if index < last else "") + comment for index, (text, comment) in enumerate(entries)]
    opening = f"CREATE TABLE {quoted(table)} (" + (" -- a view" if members[0].view else "")
    return "\n".join([opening, *lines, ");"])


def _comment(column: DescribedColumn) -> str:
    return f" -- e.g. {', '.join(column.examples)}" if column.examples else ""
