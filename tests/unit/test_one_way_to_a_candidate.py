"""A run's evaluation groups candidates as benchmarks and `ask` do: by each query's own ORDER BY, not the gold's."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from conf.schema.data import Denotation
from conf.schema.reward import BudgetConfig, RewardConfig
from rewards.builder import open_scorer
from rewards.carriers import SqlTask
from rewards.sql.executor import ExecutorPool
from rewards.sql.query import Query
from selection.candidate import executed_candidates
from trainer.evaluate import judging

UP, DOWN, PLAIN = (
    "SELECT name FROM dog ORDER BY name",
    "SELECT name FROM dog ORDER BY name DESC",
    "SELECT name FROM dog",
)
SQLS = (UP, DOWN, PLAIN, DOWN, "SELECT nme FROM dog", "SELECT name FROM dog ORDER BY name LIMIT 1", "")


@pytest.fixture
def database(tmp_path: Path) -> str:
    path = tmp_path / "dogs.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript("CREATE TABLE dog (name TEXT); INSERT INTO dog VALUES ('bo'), ('ada'), ('cy');")
    return str(path)


def classes(digests: list[str | None]) -> list[int | None]:
    """The place of the first candidate with the same digest; None for one that failed."""
    return [None if digest is None else digests.index(digest) for digest in digests]


def in_a_run(database: str, gold: str, denotation: Denotation) -> list[int | None]:
    task = SqlTask(id="1", db_id="dogs", question="?", gold_sqls=(gold,), databases=(database,), denotation=denotation)
    reward = judging(RewardConfig.model_validate({"format": {"enabled": False}, "memory": {"enabled": False}}))
    with open_scorer(reward) as scorer:
        return classes([result.result_digest for result in scorer.score(task, list(SQLS))])


def in_a_benchmark(database: str, denotation: Denotation) -> list[int | None]:
    with ExecutorPool(1) as pool:
        written = [sql for sql in dict.fromkeys(SQLS) if sql]
        runs = pool.run([Query(database=database, sql=sql, budget=BudgetConfig()) for sql in written])
    executions = dict(zip(written, runs, strict=True))
    candidates = executed_candidates(SQLS, executions, denotation=denotation, database=database)
    assert [candidate.failed for candidate in candidates] == [False] * 4 + [True, False, True]
    return classes([candidate.digest for candidate in candidates])


@pytest.mark.parametrize("gold", [PLAIN, UP])
def test_candidates_of_two_orders_are_two_answers_whatever_the_golds_order(database: str, gold: str) -> None:
    expected = [0, 1, 2, 1, None, 5, None]
    assert in_a_run(database, gold, "spider") == expected
    assert in_a_benchmark(database, "spider") == expected


@pytest.mark.parametrize("gold", [PLAIN, UP])
def test_bird_knows_no_order(database: str, gold: str) -> None:
    expected = [0, 0, 0, 0, None, 5, None]
    assert in_a_run(database, gold, "bird") == expected
    assert in_a_benchmark(database, "bird") == expected
