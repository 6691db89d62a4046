"""The published layouts of Spider and BIRD are found as they are unpacked."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from benchmarks.questions import bird, spider
from conf.errors import QuorumError
from conf.schema.benchmark import BirdQuestions, SpiderQuestions

SPIDER_ENTRY = {"db_id": "dogs", "question": "How many?", "query": "SELECT count(*) FROM dog"}
BIRD_ENTRY = {"db_id": "dogs", "question": "How many?", "evidence": "", "SQL": "SELECT count(*) FROM dog"}
TABLES = [{"db_id": "dogs", "table_names_original": ["dog"]}]


def put(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def database(folder: Path, *names: str) -> None:
    for name in names:
        (folder / "dogs").mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(folder / "dogs" / name)
        connection.execute("CREATE TABLE dog (id INTEGER PRIMARY KEY)")
        connection.commit()
        connection.close()


@pytest.mark.parametrize(
    ("split", "questions", "tables", "databases"),
    [
        ("dev", "dev.json", "tables.json", "database"),
        ("train", "train_spider.json", "tables.json", "database"),
        ("test", "test.json", "test_tables.json", "test_database"),
        ("test", "test_data/dev.json", "test_data/tables.json", "test_database"),
    ],
)
def test_spider(split: Any, questions: str, tables: str, databases: str, tmp_path: Path) -> None:
    put(tmp_path / questions, [SPIDER_ENTRY])
    put(tmp_path / tables, TABLES)
    database(tmp_path / databases, "dogs.sqlite")
    found = spider.load(SpiderQuestions(root=str(tmp_path), split=split), None)
    assert (found.name, found.whole, len(found.questions)) == (f"Spider {split}", 1, 1)
    assert found.questions[0].databases == (str(tmp_path / databases / "dogs" / "dogs.sqlite"),)


def test_the_test_suite_gives_every_database_its_instances(tmp_path: Path) -> None:
    put(tmp_path / "spider" / "dev.json", [SPIDER_ENTRY] * 3)
    put(tmp_path / "spider" / "tables.json", TABLES)
    database(tmp_path / "spider" / "database", "dogs.sqlite")
    suite = tmp_path / "test_suite"
    database(suite, "dogs_b.sqlite", "dogs.sqlite", "dogs_a.sqlite")
    (suite / "dogs" / "schema.sql").write_text("")
    found = spider.load(SpiderQuestions(root=str(tmp_path / "spider"), databases=str(suite)), 2)
    names = [Path(file).name for file in found.questions[0].databases]
    assert names == ["dogs.sqlite", "dogs_a.sqlite", "dogs_b.sqlite"]
    assert (found.whole, len(found.questions)) == (3, 2)


@pytest.mark.parametrize(
    ("split", "questions", "databases"),
    [
        ("dev", "dev.json", "dev_databases"),
        ("train", "train/train.json", "train/train_databases"),
        ("train", "train.json", "train_databases"),
        ("mini_dev", "MINIDEV/mini_dev_sqlite.json", "MINIDEV/dev_databases"),
        ("mini_dev", "mini_dev_sqlite.json", "dev_databases"),
    ],
)
def test_bird(split: Any, questions: str, databases: str, tmp_path: Path) -> None:
    entry = BIRD_ENTRY if split == "train" else {**BIRD_ENTRY, "question_id": 1471, "difficulty": "simple"}
    put(tmp_path / questions, [entry])
    database(tmp_path / databases, "dogs.sqlite", "dogs_v1.sqlite")
    (question,) = bird.load(BirdQuestions(root=str(tmp_path), split=split), None).questions
    assert (question.key, question.difficulty) == ((0, None) if split == "train" else (1471, "simple"))
    assert question.databases == (str(tmp_path / databases / "dogs" / "dogs.sqlite"),)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"dev.json line 1 column 1: not valid JSON"),
        ("{}", r"dev.json: a JSON list of questions is expected, not a dict"),
        ("[]", r"dev.json: at least one question is expected"),
        ("[1]", r"entry 0: a JSON object is expected, not a int"),
        ('[{"db_id": "dogs", "question": "How many?"}]', r"entry 0: key 'SQL' is missing"),
        (
            '[{"db_id": "cats", "question": "?", "SQL": "x"}]',
            r"1 databases are missing .*cats \(1 questions need them\)",
        ),
    ],
)
def test_question_files_that_are_none(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "dev.json").write_text(content)
    database(tmp_path / "dev_databases", "dogs.sqlite")
    with pytest.raises(QuorumError, match=message):
        bird.load(BirdQuestions(root=str(tmp_path)), None)


def test_questions_may_share_an_id_as_in_mini_dev(tmp_path: Path) -> None:
    other = {**BIRD_ENTRY, "question": "How many others?"}
    entries = [{**BIRD_ENTRY, "question_id": 3}] * 2 + [{**BIRD_ENTRY, "question_id": 4}, {**other, "question_id": 4}]
    put(tmp_path / "mini_dev_sqlite.json", entries)
    database(tmp_path / "dev_databases", "dogs.sqlite")
    found = bird.load(BirdQuestions(root=str(tmp_path), split="mini_dev"), 3)
    assert [(q.position, q.key) for q in found.questions] == [(0, 3), (1, 3), (2, 4)]
    assert (found.keys, found.shared, found.whole) == ((3, 3, 4, 4), {"4"}, 4)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"question_id": None}, "entry 1: 'question_id' must be a number or a string"),
        ({"question_id": True}, "entry 1: 'question_id' must be a number or a string"),
        ({"question_id": [1]}, "entry 1: 'question_id' must be a number or a string"),
        ({}, "entry 1: 'question_id' must be a number or a string"),
        ({"question_id": 2, "difficulty": 3}, "entry 1: 'difficulty' must be a string, not int"),
        ({"question_id": 2, "evidence": 3}, "entry 1: 'evidence' must be a string, not int"),
        ({"question_id": float("nan")}, "NaN is no JSON number"),
    ],
)
def test_entries_of_the_wrong_type(entry: dict[str, Any], message: str, tmp_path: Path) -> None:
    put(tmp_path / "dev.json", [{**BIRD_ENTRY, "question_id": 1}, {**BIRD_ENTRY, **entry}])
    database(tmp_path / "dev_databases", "dogs.sqlite")
    with pytest.raises(QuorumError, match=message):
        bird.load(BirdQuestions(root=str(tmp_path)), 1)
