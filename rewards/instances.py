"""More instances of a database: python -m rewards.instances input=CASES.jsonl databases=ROOT output=NEW_ROOT

One instance cannot tell `>` from `>=` when no row sits on the boundary, nor the gold from a copy of its rows. For every
database named in the input this makes changed copies, runs each gold, its neighbour mutants and its cheats (constant,
empty and literal answers, rewards/sql/cheats.py) on them, and keeps the copies that separate the most of these that
nothing kept so far separates. NEW_ROOT then serves as `databases=` with reward=strict or
reward.execution.instances=all.
The existing instances are copied along; a report goes to stdout and to NEW_ROOT/instances.json.

A folder of NEW_ROOT is whole or not there. A database that cannot be read, copied or changed is named on stderr with
the reason; the others are made, and the exit code is 1.
"""

import json
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import count
from pathlib import Path

from conf.cli import run_entrypoint
from conf.errors import QuorumError, first_line
from conf.schema.data import Denotation
from conf.schema.instances import InstancesConfig
from conf.terminal import visible
from rewards.carriers import Execution
from rewards.cases import BadLine, read_cases
from rewards.perturb import InstanceImpossible, make_instance, read_hints
from rewards.sql.cheats import cheats
from rewards.sql.executor import ExecutorPool, Query
from rewards.sql.files import expected_files
from rewards.sql.gold import GoldStore
from rewards.sql.gold_answer import Gold
from rewards.sql.mutants import mutants
from rewards.sql.parse import ParseFailure
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


@contextmanager
def _whole(target: Path) -> Iterator[Path]:
    """A folder to make in a hidden place, which becomes `target` at the end; after an error nothing of it is left."""
    with tempfile.TemporaryDirectory(prefix=".making-", dir=target.parent) as hidden:
        folder = Path(hidden) / target.name
        yield folder
        folder.rename(target)


def _why_none(outcome: Outcome) -> str:
    if outcome.kept:
        return ""
    return ": no changed copy kills more" if outcome.golds else ": none of its golds runs"


def _golds_by_database(config: InstancesConfig) -> dict[str, list[tuple[str, Denotation]]]:
    found: dict[str, list[tuple[str, Denotation]]] = {}
    with open(config.input, "rb") as lines:
        for item in read_cases(lines, Path(config.databases), golds_only=True):
            if isinstance(item, BadLine):
                raise QuorumError(f"{config.input} line {item.number}: {item.reason}")
            golds = [(sql, item.task.denotation) for sql in item.task.gold_sqls]
            found.setdefault(item.task.db_id, []).extend(golds)
    return found


def _make_folder(target: Path) -> None:
    """Raises QuorumError where no new folder can be made."""
    try:
        target.mkdir(parents=True, exist_ok=True)
        filled = any(target.iterdir())
    except OSError as error:
        raise QuorumError(f"output={target} cannot be a folder: {error.strerror}") from error
    if filled:
        raise QuorumError(f"output={target} is not empty: choose a new folder")


def run(config: InstancesConfig) -> int:
    """Makes instances for every database of the input; 0, or 1 when one could not be read, copied or changed."""
    root, target = Path(config.databases), Path(config.output)
    if not Path(config.input).is_file():
        raise QuorumError(f"input={config.input}: no such file")
    if not root.is_dir():
        raise QuorumError(f"databases={root}: no such folder")
    golds = _golds_by_database(config)
    _make_folder(target)
    outcomes, failed = [], 0
    with ExecutorPool(config.executors) as pool:
        maker = InstanceMaker(config, pool)
        for db_id in sorted(golds):
            try:
                with _whole(target / db_id) as folder:
                    outcome = maker.make(db_id, golds[db_id], expected_files(root, db_id), folder)
            except (DatabaseUnreadable, InstanceImpossible, OSError, sqlite3.Error) as error:
                failed += 1
                why = first_line(error, otherwise=type(error).__name__)
                sys.stderr.write(f"{visible(f'{db_id}: {why}')}\n")
                continue
            outcomes.append(outcome)
            sys.stdout.write(
                f"{visible(db_id)}: {outcome.killed_before} -> {outcome.killed_after} of {outcome.mutants} mutants of "
                f"{outcome.golds} golds killed, {outcome.cheats_killed_before} -> {outcome.cheats_killed_after} of "
                f"{outcome.cheats} cheats, {len(outcome.kept)} new instances{_why_none(outcome)}\n"
            )
    (target / "instances.json").write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1) + "\n")
    mutants_total = sum(outcome.mutants for outcome in outcomes)
    before = sum(outcome.killed_before for outcome in outcomes)
    after = sum(outcome.killed_after for outcome in outcomes)
    cheats_total = sum(outcome.cheats for outcome in outcomes)
    cheats_before = sum(outcome.cheats_killed_before for outcome in outcomes)
    cheats_after = sum(outcome.cheats_killed_after for outcome in outcomes)
    sys.stdout.write(
        f"all: {before} -> {after} of {mutants_total} mutants killed, {cheats_before} -> {cheats_after} of "
        f"{cheats_total} cheats\n"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(run_entrypoint(InstancesConfig, "instances", run, __doc__ or "", sys.argv[1:]))
