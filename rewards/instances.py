"""More instances of a database: python -m rewards.instances input=CASES.jsonl databases=ROOT output=NEW_ROOT

One instance cannot tell `>` from `>=` when no row sits on the boundary. For every database named in the input this
makes changed copies, runs each gold and its neighbour mutants on them, and keeps the copies that separate the most
mutants that nothing kept so far separates. NEW_ROOT then serves as `databases=` with reward.execution.instances=all.
The existing instances are copied along; a report goes to stdout and to NEW_ROOT/instances.json.
"""

import json
import shutil
import sqlite3
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from conf.cli import run_entrypoint
from conf.errors import QuorumError
from conf.schema.data import Denotation
from conf.schema.instances import InstancesConfig
from rewards.cases import BadLine, read_cases
from rewards.perturb import make_instance, read_hints
from rewards.sql.executor import ExecutorPool, Query
from rewards.sql.files import expected_files
from rewards.sql.gold import GoldStore
from rewards.sql.mutants import mutants
from rewards.sql.parse import ParseFailure
from rewards.sql.schema import DatabaseUnreadable, read_schema


@dataclass(frozen=True, kw_only=True, slots=True)
class GoldQuery:
    sql: str
    denotation: Denotation
    mutants: tuple[str, ...]
    """Neighbours that run on the primary instance."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What new instances do for one database."""

    db_id: str
    golds: int
    mutants: int
    killed_before: int
    """Mutants that the existing instances tell from their gold."""
    killed_after: int
    kept: tuple[str, ...]
    """Names of the new files."""
    ambiguous_golds: int
    """Most golds whose rows hang on scan order on a kept instance and on no existing one."""


Kills = set[tuple[int, int]]
"""(gold, mutant) pairs."""


class InstanceMaker:
    """Makes and selects instances of one database after the other."""

    def __init__(self, config: InstancesConfig, pool: ExecutorPool) -> None:
        self._config = config
        self._pool = pool

    def make(self, db_id: str, golds: Sequence[tuple[str, Denotation]], files: Sequence[str], folder: Path) -> Outcome:
        """Fills `folder` with the existing files and the new instances. Raises DatabaseUnreadable."""
        folder.mkdir(parents=True)
        for file in files:
            shutil.copyfile(file, folder / Path(file).name)
        queries = self._queries(golds, files[0])
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
            target = folder / f"{db_id}_x{number:02d}.sqlite"
            make_instance(files[0], target, hints=hints, rows=self._config.rows, seed=self._config.seed * 1000 + number)
            kills, ambiguous = self._kills(queries, str(target))
            ambiguity[target] = len(ambiguous - known)
            if ambiguity[target] <= self._config.max_ambiguous * len(queries):
                candidates[target] = kills
        kept, after = _cover(candidates, before, self._config.keep)
        for target in ambiguity.keys() - set(kept):
            target.unlink()
        return Outcome(
            db_id=db_id,
            golds=len(queries),
            mutants=sum(len(query.mutants) for query in queries),
            killed_before=len(before),
            killed_after=len(after),
            kept=tuple(target.name for target in kept),
            ambiguous_golds=max((ambiguity[target] for target in kept), default=0),
        )

    def _queries(self, golds: Sequence[tuple[str, Denotation]], primary: str) -> list[GoldQuery]:
        """Golds that run, with those of their mutants that run too."""
        schema = read_schema(primary)
        queries = []
        for sql, denotation in dict.fromkeys(golds):
            try:
                neighbours = [mutant.sql for mutant in mutants(sql, schema)]
            except ParseFailure:
                continue
            step = max(1, -(-len(neighbours) // self._config.mutants_per_gold))
            gold, *runs = self._pool.run([self._query(primary, text) for text in (sql, *neighbours[::step])])
            if gold.status == "ok":
                running = [text for text, run in zip(neighbours[::step], runs, strict=True) if run.status == "ok"]
                queries.append(GoldQuery(sql=sql, denotation=denotation, mutants=tuple(running)))
        return queries

    def _kills(self, queries: Sequence[GoldQuery], database: str) -> tuple[Kills, set[int]]:
        """Mutants told from their gold on this instance, and the golds that fail or hang on scan order on it."""
        store = GoldStore(self._pool, self._config.budget)
        kills: Kills = set()
        ambiguous: set[int] = set()
        for position, query in enumerate(queries):
            (gold,) = store.results([query.sql], [database], query.denotation)
            if not gold.usable or gold.order_dependent or gold.order_unknown:
                ambiguous.add(position)
                continue
            runs = self._pool.run([self._query(database, text) for text in query.mutants])
            for number, run in enumerate(runs):
                if run.status != "unscorable" and not gold.accepts(0, run, policy=query.denotation):
                    kills.add((position, number))
        return kills, ambiguous

    def _query(self, database: str, sql: str) -> Query:
        return Query(database=database, sql=sql, budget=self._config.budget)


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
    """Makes instances for every database of the input; 0, or 1 when a database could not be read."""
    root, target = Path(config.databases), Path(config.output)
    if not Path(config.input).is_file():
        raise QuorumError(f"input={config.input}: no such file")
    golds = _golds_by_database(config)
    _make_folder(target)
    outcomes, failed = [], 0
    with ExecutorPool(config.executors) as pool:
        maker = InstanceMaker(config, pool)
        for db_id in sorted(golds):
            try:
                outcome = maker.make(db_id, golds[db_id], expected_files(root, db_id), target / db_id)
            except (DatabaseUnreadable, OSError, sqlite3.Error) as error:
                failed += 1
                sys.stderr.write(f"{db_id}: {error}\n")
                continue
            outcomes.append(outcome)
            sys.stdout.write(
                f"{db_id}: {outcome.killed_before} -> {outcome.killed_after} of {outcome.mutants} mutants of "
                f"{outcome.golds} golds killed, {len(outcome.kept)} new instances\n"
            )
    (target / "instances.json").write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1) + "\n")
    mutants_total = sum(outcome.mutants for outcome in outcomes)
    before = sum(outcome.killed_before for outcome in outcomes)
    after = sum(outcome.killed_after for outcome in outcomes)
    sys.stdout.write(f"all: {before} -> {after} of {mutants_total} mutants killed\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(run_entrypoint(InstancesConfig, "instances", run, __doc__ or "", sys.argv[1:]))
