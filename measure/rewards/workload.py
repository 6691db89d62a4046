"""What is scored: recorded predictions on real schemas, groups as a policy samples them, and what a hostile policy
writes."""

import random
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal

from benchmarks.carriers import QuestionSet
from benchmarks.predictions import read_predictions
from benchmarks.questions import bird, spider
from conf.schema.benchmark import BirdQuestions, SpiderQuestions
from rewards.carriers import SqlTask
from rewards.instances.mutants import mutants
from rewards.scorer import ScoreJob
from rewards.sql.parse import ParseFailure, canonical
from rewards.sql.schema import read_schema

Dataset = Literal["spider", "bird"]
GROUP = 32
FAVOURITES = 12
"""Different wrong queries in a group; the first few make up most of it, as with a policy that has favourite
mistakes."""
SOAK_QUESTIONS = 100
"""Few enough that caches fill early and a leak shows."""
HOSTILE = (
    "WITH RECURSIVE t(i) AS (SELECT {n} UNION ALL SELECT i + 1 FROM t) SELECT count(*) FROM t",
    "WITH RECURSIVE t(i) AS (SELECT {n} UNION ALL SELECT i + 1 FROM t) SELECT i FROM t",
    "SELECT count(*) + {n} FROM sqlite_master a, sqlite_master b, sqlite_master c, sqlite_master d, sqlite_master e, "
    "sqlite_master f, sqlite_master g, sqlite_master h, sqlite_master i, sqlite_master j, sqlite_master k",
    "SELECT randomblob(900000000 + {n})",
    "SELECT printf('%.*c', 1000000000 + {n}, 'x')",
    "SELECT " + "(" * 5000 + "{n}" + ")" * 5000,
    "SELECT '{n}" + "x" * 1_000_000 + "'",
    "SELECT {n}\0",
    "DROP TABLE t{n}",
    "DELETE FROM sqlite_master WHERE rowid = {n}",
    "PRAGMA user_version = {n}",
    "ATTACH 'file{n}.db' AS other",
    "SELECT {n}; SELECT 1",
    "the answer is {n}",
    "SELECT load_extension('lib{n}')",
    "SELECT zeroblob(1000000) FROM sqlite_master WHERE {n}",
    "SELECT missing_{n} FROM sqlite_master",
    "SELECT {n} FROM",
    "",
)
_SENTENCES = (
    "The question asks about {table}, so its {column} is what the answer needs.",
    "Rows of {table} are filtered by {column} before anything is counted.",
    "To connect the tables, the key of {table} is matched and {column} is kept.",
    "Grouping by {column} gives one row for each value in {table}.",
    "The largest {column} comes first, so {table} is sorted in falling order.",
    "No other column of {table} is asked for, only {column}.",
)


def load_questions(data: str, dataset: Dataset) -> QuestionSet:
    """The dev questions. Raises BenchmarkError."""
    root = str(Path(data) / dataset)
    return (
        spider.load(SpiderQuestions(root=root), None)
        if dataset == "spider"
        else bird.load(BirdQuestions(root=root), None)
    )


def prediction_jobs(data: str, dataset: Dataset) -> list[ScoreJob]:
    """Every question with its distinct recorded predictions. Raises BenchmarkError."""
    asked = load_questions(data, dataset)
    files = sorted(file for file in (Path(data) / "predictions").iterdir() if file.name.startswith(dataset))
    columns = [read_predictions(str(file), asked).answers for file in files]
    jobs = []
    for question, *answers in zip(asked.questions, *columns, strict=True):
        distinct = {canonical(answer.candidates[0]): answer.candidates[0] for answer in answers}
        task = question.task(dataset)
        jobs.append(ScoreJob(task=task, completions=[completion(task, sql) for sql in distinct.values()]))
    return jobs


def group_jobs(data: str, dataset: Dataset, count: int, seed: int) -> list[ScoreJob]:
    """Groups of GROUP completions as a policy samples them: some right, favourite mistakes many times, others once."""
    draw = random.Random(seed)
    questions = draw.sample(load_questions(data, dataset).questions, count)
    jobs = []
    for question in questions:
        try:
            wrong = [m.sql for m in mutants(question.gold, read_schema(question.databases[0]))]
        except ParseFailure:
            wrong = []
        wrong = draw.sample(wrong, min(FAVOURITES, len(wrong)))
        choices = [question.gold, *wrong]
        texts = draw.choices(choices, [1 / (rank + 1) for rank in range(len(choices))], k=GROUP)
        task = question.task(dataset)
        jobs.append(ScoreJob(task=task, completions=[completion(task, sql) for sql in texts]))
    return jobs


def soak_jobs(data: str, completions: int, seed: int) -> Iterator[ScoreJob]:
    """Groups over SOAK_QUESTIONS questions: recorded predictions, and in one place of twenty something hostile."""
    draw = random.Random(seed)
    ordinary = draw.sample([*prediction_jobs(data, "spider"), *prediction_jobs(data, "bird")], SOAK_QUESTIONS)
    written = number = 0
    while written < completions:
        job = draw.choice(ordinary)
        texts = list(draw.choices(job.completions, k=min(GROUP, completions - written)))
        for position in range(len(texts)):
            if draw.random() < 0.05:
                number += 1
                hostile = draw.choice(HOSTILE).replace("{n}", str(number % 20))
                texts[position] = completion(job.task, hostile)
        written += len(texts)
        yield ScoreJob(task=job.task, completions=texts)


def batches(jobs: Sequence[ScoreJob] | Iterator[ScoreJob], size: int) -> Iterator[list[ScoreJob]]:
    iterator = iter(jobs)
    while batch := list(islice(iterator, size)):
        yield batch


def completion(task: SqlTask, sql: str) -> str:
    """A well-formed completion whose reasoning mentions the schema."""
    return f"<think>{reasoning(task, sql)}</think>{sql}"


def reasoning(task: SqlTask, salt: str) -> str:
    """Some sentences about the task's tables, the same for the same query."""
    draw = random.Random(f"{task.id} {salt[:200]}")
    table = draw.choice(read_tables(task.databases[0]))
    lines = (draw.choice(_SENTENCES).format(table=table[0], column=draw.choice(table[1])) for _ in range(6))
    return " ".join(lines)


_TABLES: dict[str, list[tuple[str, list[str]]]] = {}


def read_tables(database: str) -> list[tuple[str, list[str]]]:
    """(table, columns) of a database; read once."""
    if database not in _TABLES:
        _TABLES[database] = [(t.name, [c.name for c in t.columns]) for t in read_schema(database).tables]
    return _TABLES[database]
