"""Which results of one question's candidates are the same answer, without a gold: what voting counts.

Results agree that are equal under the denotation, the last bits of their sums of reals aside. The classes do not depend
on the order in which the results are listed.
"""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

from conf.schema.data import Denotation
from rewards.carriers import Execution, Value
from rewards.sql.denotation import rows_digest
from rewards.sql.inexact import inexact_views, settled, sums_inexactly
from rewards.sql.parse import has_top_level_order_by
from rewards.sql.schema import DatabaseUnreadable

Row = tuple[Value, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """The rows of a query that ran."""

    rows: Sequence[Row]
    ordered: bool
    """Their order counts, where the denotation looks at order."""
    inexact: bool
    """They may hold sums of reals."""


def agreeing(
    executions: Mapping[str, Execution], policy: Denotation, *, database: str | None = None
) -> dict[str, str | None]:
    """By query a digest of its result, the same for queries whose results agree; None for one that failed.

    `database`: where the queries' views can be looked up; without it sums inside views are exact.
    """
    results = [
        Result(rows=run.rows, ordered=has_top_level_order_by(sql), inexact=is_inexact(sql, database))
        if run.status == "ok"
        else None
        for sql, run in executions.items()
    ]
    return dict(zip(executions, agreed(results, policy), strict=True))


def is_inexact(sql: str, database: str | None) -> bool:
    """Whether a query holds sums of reals, itself or in a view of the database."""
    if sums_inexactly(sql) or database is None:
        return sums_inexactly(sql)
    try:
        return sums_inexactly(sql, inexact_views(database))
    except DatabaseUnreadable:  # then nothing ran on it
        return False


def agreed(results: Sequence[Result | None], policy: Denotation) -> list[str | None]:
    """One digest for each result, the same exactly for those that agree; None for one that failed.

    >>> third = Result(rows=[(0.3,)], ordered=False, inexact=True)
    >>> other = Result(rows=[(0.1 + 0.2,)], ordered=False, inexact=True)
    >>> len(set(agreed([third, other], "bird")))
    1
    """
    # Most candidates have the very same rows: what is equal is settled and digested once.
    classes: dict[Hashable, list[int]] = {}
    for index, one in enumerate(results):
        if one is not None:
            classes.setdefault(_exact(one, policy), []).append(index)
    members = list(classes.values())
    firsts = [results[indices[0]] for indices in members]
    kept = [one for one in firsts if one is not None]
    inexact = [any(one is not None and one.inexact for one in map(results.__getitem__, indices)) for indices in members]
    rows = [one.rows for one in kept]
    if len(kept) > 1:
        rows = settled(rows, inexact)
    digests: list[str | None] = [None] * len(results)
    made: dict[Hashable, str] = {}
    for one, own, indices in zip(kept, rows, members, strict=True):
        key = _exact(replace(one, rows=own), policy)
        if key not in made:
            made[key] = rows_digest(own, policy=policy, ordered=one.ordered)
        for index in indices:
            digests[index] = made[key]
    return digests


def _exact(one: Result, policy: Denotation) -> Hashable:
    """The same only for results that are equal."""
    if policy == "bird":
        return frozenset(one.rows)
    if one.ordered and len(one.rows) > 1:
        return True, tuple(one.rows)
    return False, frozenset(Counter(one.rows).items())
