"""Makes and selects more instances of a database.

One instance cannot tell `>` from `>=` when no row sits on the boundary, nor the gold from a copy of its rows. A maker
runs each gold, its neighbour mutants and its cheats (constant, empty and literal answers, rewards/sql/cheats.py) on
changed copies of a database, and keeps the copies that separate the most of these that nothing kept so far separates.
"""

import shutil
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

from conf.schema.data import Denotation
from conf.schema.instances import InstancesConfig
from rewards.carriers import Execution
from rewards.instances.mutants import mutants
from rewards.instances.perturb import make_instance, read_hints
from rewards.sql.cheats import cheats
from rewards.sql.executor import ExecutorPool
from rewards.sql.gold import GoldStore
from rewards.sql.gold_answer import Gold
from rewards.sql.parse import ParseFailure
from rewards.sql.query import Query
from rewards.sql.schema import DatabaseUnreadable, read_schema
from rewards.sql.snapshot import readable


@dataclass(frozen=True, kw_only=True, slots=True)
class GoldQuery:
    sql: str
    denotation: Denotation
    mutants: tuple[str, ...]
    """Neighbours that run on the primary instance."""
    cheats: tuple[str, ...]
    """Constant, empty and literal answers made of its rows on the existing instances."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What new instances do for one database."""

    db_id: str
    golds: int
    mutants: int
    killed_before: int
    """Mutants that the existing instances tell from their gold."""
    killed_after: int
    cheats: int
    """Constant, empty and literal answers; they do not count as mutants."""
    cheats_killed_before: int
    cheats_killed_after: int
    kept: tuple[str, ...]
    """Names of the new files."""
    ambiguous_golds: int
    """Most golds whose rows hang on scan order on a kept instance and on no existing one."""


Kills = set[tuple[int, int]]
"""(gold, number) pairs: the numbers of a gold's cheats follow those of its mutants."""


class InstanceMaker:
    """Makes and selects instances of one database after the other."""

    def __init__(self, config: InstancesConfig, pool: ExecutorPool) -> None:
        self._config = config
        self._pool = pool

    def make(self, db_id: str, golds: Sequence[tuple[str, Denotation]], files: Sequence[str], folder: Path) -> Outcome:
        """Fills `folder` with the existing files and the new instances. Raises DatabaseUnreadable, InstanceImpossible,
        OSError and sqlite3.Error."""
        for file in files[1:]:
            read_schema(file)  # one that cannot be read would make every task of the new folder unscorable
        queries = self._queries(golds, files)
        folder.mkdir(parents=True)
        for file in files:
            _copy(file, folder / Path(file).name)
        names = _new_names(db_id, {Path(file).name for file in files})
        hints = read_hints(query.sql for query in queries)
        before: Kills = set()
        known: set[int] = set()
        for file in files:
            kills, ambiguous = self._kills(queries, file)
            before |= kills
            known |= ambiguous
        candidates: dict[Path, Kills] = {}
        ambiguity: dict[Path, int] = {}
        for number in range(self._config.candidates):
            target = folder / next(names)
            make_instance(files[0], target, hints=hints, rows=self._config.rows, seed=self._config.seed * 1000 + number)
            kills, ambiguous = self._kills(queries, str(target))
            ambiguity[target] = len(ambiguous - known)
            if ambiguity[target] <= self._config.max_ambiguous * len(queries):
                candidates[target] = kills
        kept, after = _cover(candidates, before, self._config.keep)
        for target in ambiguity.keys() - set(kept):
            target.unlink()
        cheats_before, cheats_after = _cheats(queries, before), _cheats(queries, after)
        return Outcome(
            db_id=db_id,
            golds=len(queries),
            mutants=sum(len(query.mutants) for query in queries),
            killed_before=len(before) - cheats_before,
            killed_after=len(after) - cheats_after,
            cheats=sum(len(query.cheats) for query in queries),
            cheats_killed_before=cheats_before,
            cheats_killed_after=cheats_after,
            kept=tuple(target.name for target in kept),
            ambiguous_golds=max((ambiguity[target] for target in kept), default=0),
        )

    def _queries(self, golds: Sequence[tuple[str, Denotation]], files: Sequence[str]) -> list[GoldQuery]:
        """Golds that run, with those of their mutants that run too, and their cheats; one that cannot be parsed has
        cheats alone."""
        schema = read_schema(files[0])
        queries = []
        for sql, denotation in dict.fromkeys(golds):
            try:
                neighbours = [mutant.sql for mutant in mutants(sql, schema)]
            except ParseFailure:
                neighbours = []
            (gold,) = self._pool.run([self._query(files[0], sql)])
            if gold.status == "unscorable":
                raise DatabaseUnreadable(f"a gold query was lost: {gold.error}")
            if gold.status == "ok":
                step = max(1, -(-len(neighbours) // self._config.mutants_per_gold))
                tried = neighbours[::step]
                ran = self._pool.each([self._query(files[0], text) for text in tried], lambda _, run: run.status)
                running = tuple(text for text, status in zip(tried, ran, strict=True) if status == "ok")
                elsewhere = self._pool.run([self._query(file, sql) for file in files[1:]])
                copies = self._cheats([gold, *elsewhere])
                queries.append(GoldQuery(sql=sql, denotation=denotation, mutants=running, cheats=copies))
        return queries

    def _cheats(self, results: Sequence[Execution]) -> tuple[str, ...]:
        """Made of a gold's results on the existing instances, the primary one first."""
        running = [result for result in results if result.status == "ok"]
        made = [cheat.sql for result in running for cheat in cheats(result, chars=self._config.budget.sql_chars)]
        return tuple(dict.fromkeys(made))

    def _kills(self, queries: Sequence[GoldQuery], database: str) -> tuple[Kills, set[int]]:
        """Mutants and cheats told from their gold on this instance, and the golds that fail or hang on scan order on
        it."""
        store = GoldStore(self._pool, self._config.budget)
        kills: Kills = set()
        ambiguous: set[int] = set()
        for position, query in enumerate(queries):
            (gold,) = store.results([query.sql], [database], query.denotation)
            if not gold.usable or gold.order_dependent or gold.order_unknown:
                ambiguous.add(position)
                continue
            asked = [self._query(database, text) for text in (*query.mutants, *query.cheats)]
            told = self._pool.each(asked, partial(_told_apart, gold, query.denotation))
            kills |= {(position, number) for number, apart in enumerate(told) if apart}
        return kills, ambiguous

    def _query(self, database: str, sql: str) -> Query:
        return Query(database=database, sql=sql, budget=self._config.budget)


def _told_apart(gold: Gold, denotation: Denotation, number: int, run: Execution) -> bool:
    return run.status != "unscorable" and not gold.accepts(0, run, policy=denotation)


def _cheats(queries: Sequence[GoldQuery], kills: Kills) -> int:
    """How many of the kills are those of cheats."""
    return sum(number >= len(queries[gold].mutants) for gold, number in kills)


def _cover(candidates: dict[Path, Kills], before: Kills, keep: int) -> tuple[list[Path], Kills]:
    """Greedy: the candidate that kills most of what is still alive, until none kills more or enough are kept."""
    kept: list[Path] = []
    killed = set(before)
    while len(kept) < keep:
        best = max(candidates, key=lambda target: len(candidates[target] - killed), default=None)
        if best is None or not candidates[best] - killed:
            break
        kept.append(best)
        killed |= candidates.pop(best)
    return kept, killed


def _copy(file: str, target: Path) -> None:
    """Copies what a reader sees, the rows of a write-ahead log included. Raises OSError and DatabaseUnreadable."""
    shutil.copyfile(readable(file), target)


def _new_names(db_id: str, taken: Collection[str]) -> Iterator[str]:
    names = (f"{db_id}_x{number:02d}.sqlite" for number in count())
    return (name for name in names if name not in taken)
