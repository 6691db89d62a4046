"""Builds the demo databases with sqlite-utils: the same rows for the same seed, published by rename or not at all.

Layout: ROOT/<fingerprint>/<db_id>/<db_id>.sqlite is the primary instance; <db_id>_v1.sqlite beside it has the same
schema and other rows, so that a query which is right by accident on one instance can be caught on the other.
"""

import hashlib
import random
import shutil
import tempfile
from pathlib import Path

from sqlite_utils import Database

from conf.output import publish
from rollout.tasks.carriers import DataError
from rollout.tasks.demo.domains import DOMAINS, Domain, Entity

INSTANCES = 2

Row = dict[str, int | str]


def build_databases(root: str | Path, seed: int) -> dict[str, tuple[str, ...]]:
    """Database files by db_id, primary instance first; builds them when absent. Raises DataError."""
    folder = Path(root) / fingerprint(seed)
    if not folder.is_dir():
        try:
            _publish(folder, seed)
        except OSError as error:
            raise DataError(f"data.root={root}: the demo databases cannot be written there: {error}") from error
    return {d.db_id: tuple(str(_file(folder, d, i)) for i in range(INSTANCES)) for d in DOMAINS}


def fingerprint(seed: int) -> str:
    """Names the folder after the seed and the domains' definition: databases of another definition are never reused."""
    return f"seed-{seed}-{hashlib.sha256(repr((DOMAINS, INSTANCES)).encode()).hexdigest()[:12]}"


def table_rows(domain: Domain, entity: Entity, *, seed: int, instance: int) -> list[Row]:
    """The rows of one table; a pure function of its arguments."""
    rng = random.Random(f"{seed}/{instance}/{domain.db_id}/{entity.table}")
    first, second = entity.label_words
    labels = rng.sample([f"{a} {b}" for a in first for b in second], entity.rows)
    numbers = {column: rng.sample(range(low, high + 1), entity.rows) for column, (low, high) in entity.numbers.items()}
    rows: list[Row] = []
    for index in range(entity.rows):
        row: Row = {entity.key: index + 1, entity.label: labels[index]}
        row |= {column: rng.choice(values) for column, values in entity.categories.items()}
        row |= {column: values[index] for column, values in numbers.items()}
        if entity is domain.child:
            row[domain.parent.key] = rng.randint(1, domain.parent.rows)
        rows.append(row)
    return rows


def _file(folder: Path, domain: Domain, instance: int) -> Path:
    suffix = f"_v{instance}" if instance else ""
    return folder / domain.db_id / f"{domain.db_id}{suffix}.sqlite"


def _publish(folder: Path, seed: int) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".building-", dir=folder.parent))
    try:
        for domain in DOMAINS:
            for instance in range(INSTANCES):
                file = _file(scratch, domain, instance)
                file.parent.mkdir(exist_ok=True)
                _write(file, domain, seed=seed, instance=instance)
        publish(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _write(file: Path, domain: Domain, *, seed: int, instance: int) -> None:
    database = Database(str(file))
    try:
        for entity in (domain.parent, domain.child):
            rows = table_rows(domain, entity, seed=seed, instance=instance)
            keys = [(domain.parent.key, domain.parent.table, domain.parent.key)] if entity is domain.child else []
            database.table(entity.table).insert_all(rows, pk=entity.key, foreign_keys=keys)
    finally:
        database.close()
