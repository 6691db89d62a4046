"""Do a gold's rows hang on the order in which SQLite happens to scan its tables?

Two probes. Rows that tie at a LIMIT's cut are found by asking for the sort keys and one more row on either side of it.
Scans that no ORDER BY governs are run in the other direction (`Query.reverse_unordered`). Both find dependence that
shows on the data at hand; neither proves its absence: bare columns of an aggregate and subqueries that only run inside
their outer query are not probed. Ties inside a sorted result change its sequence but not its rows, and are left alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlglot import exp

from rewards.carriers import Value
from rewards.sql.parse import ParseFailure, parse_query

Row = tuple[Value, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class TieProbe:
    """A query whose rows end with their sort keys."""

    sql: str
    keys: int
    """Number of sort keys behind the visible columns."""
    skipped: int
    """Rows shown before the first that the gold returns (0 or 1)."""
    kept: int
    """Rows that the gold returns at most."""

    def shows_tie(self, rows: Sequence[Row]) -> bool:
        """Whether rows with equal keys and different contents stand on both sides of a cut."""
        for cut in (self.skipped, self.skipped + self.kept):
            if 0 < cut < len(rows):
                group = [row for row in rows if self._key(row) == self._key(rows[cut])]
                if self._key(rows[cut - 1]) == self._key(rows[cut]) and any(row != group[0] for row in group):
                    return True
        return False

    def _key(self, row: Row) -> Row:
        return row[len(row) - self.keys :]


def tie_probes(sql: str) -> list[TieProbe]:
    """One probe for every sorted SELECT that a LIMIT cuts; none for a query that cannot be parsed."""
    if "limit" not in sql.lower():
        return []
    try:
        tree = parse_query(sql)
    except ParseFailure:
        return []
    probes = []
    for select in tree.find_all(exp.Select):
        if select.args.get("order") and select.args.get("limit"):
            probe = _probe(select, tree.args.get("with_") if select is not tree else None)
            if probe is not None:
                probes.append(probe)
    return probes


def _probe(select: exp.Select, ctes: exp.Expr | None) -> TieProbe | None:
    probe = select.copy()
    keys = [_resolved(ordered.this, probe) for ordered in probe.args["order"].expressions]
    if probe.args.get("distinct") and any(key not in [p.unalias() for p in probe.expressions] for key in keys):
        return None  # another column would change what is distinct
    kept, offset = _number(probe.args.get("limit")), _number(probe.args.get("offset"))
    if kept is None or offset is None:
        return None
    for key in keys:
        probe.append("expressions", key.copy())
    skipped = 1 if offset else 0
    probe.limit(kept + 1 + skipped, copy=False)
    if offset:
        probe.offset(offset - 1, copy=False)
    if ctes is not None and not probe.args.get("with_"):
        probe.set("with_", ctes.copy())
    return TieProbe(sql=probe.sql(dialect="sqlite"), keys=len(keys), skipped=skipped, kept=kept)


def _resolved(key: exp.Expr, select: exp.Select) -> exp.Expr:
    """The expression behind a sort key: an ordinal or an alias stands for its column of the select list."""
    if isinstance(key, exp.Literal) and not key.is_string and key.name.isdigit():
        position = int(key.name) - 1
        if position < len(select.expressions):
            chosen: exp.Expr = select.expressions[position].unalias()
            return chosen
    if isinstance(key, exp.Column) and not key.table:
        for projection in select.expressions:
            if isinstance(projection, exp.Alias) and projection.alias.lower() == key.name.lower():
                return projection.this
    return key


def _number(clause: exp.Expr | None) -> int | None:
    """The literal of a LIMIT or OFFSET: 0 without one, None when it is no plain number."""
    if clause is None:
        return 0
    value = clause.expression
    return int(value.name) if isinstance(value, exp.Literal) and value.name.isdigit() else None
