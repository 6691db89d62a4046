"""More instances of a database: python -m curation.instances input=CASES.jsonl databases=ROOT output=NEW_ROOT

For every database named in the input, rewards/instances makes changed copies and keeps those that separate the most
wrong answers from the golds. NEW_ROOT then serves as `databases=` with reward=strict or
reward.execution.instances=all.
The existing instances are copied along; a report goes to stdout and to NEW_ROOT/instances.json.

A folder of NEW_ROOT is whole or not there. A database that cannot be read, copied or changed is named on stderr with
the reason; the others are made, and the exit code is 1.
"""

import json
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from conf.cli import run_entrypoint
from conf.errors import QuorumError, first_line
from conf.schema.data import Denotation
from conf.schema.instances import InstancesConfig
from conf.terminal import visible
from rewards.cases import BadLine, read_cases
from rewards.instances.maker import InstanceMaker, Outcome
from rewards.instances.perturb import InstanceImpossible
from rewards.sql.executor import ExecutorPool
from rewards.sql.files import expected_files
from rewards.sql.schema import DatabaseUnreadable


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
