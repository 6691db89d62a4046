"""New instances: consistent, and able to tell a gold from its near misses."""

import hashlib
import json
import sqlite3
from pathlib import Path

import pytest

from conf.errors import QuorumError
from conf.schema.instances import InstancesConfig
from rewards.instances import run
from rewards.perturb import make_instance, read_hints
from rewards.sql.schema import read_schema
from tests.unit.losing_pool import LosingPool

GOLD = "SELECT name FROM dog WHERE age > 4"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "databases" / "dogs"
    folder.mkdir(parents=True)
    connection = sqlite3.connect(folder / "dogs.sqlite")
    connection.executescript(
        "CREATE TABLE owner (id INTEGER PRIMARY KEY, city TEXT NOT NULL);"
        "CREATE TABLE dog (id INTEGER PRIMARY KEY, name TEXT, age INTEGER CHECK (age >= 0),"
        " owner INTEGER REFERENCES owner(id));"
        "INSERT INTO owner VALUES (1, 'Rome'), (2, 'Bern');"
        "INSERT INTO dog VALUES (1, 'rex', 3, 1), (2, 'ace', 6, 2), (3, 'old', 9, 2);"
    )
    connection.commit()
    connection.close()
    return tmp_path / "databases"


def test_changed_rows_stay_consistent_and_the_source_untouched(root: Path, tmp_path: Path) -> None:
    source = root / "dogs" / "dogs.sqlite"
    before = hashlib.sha256(source.read_bytes()).hexdigest()
    hints = read_hints([GOLD, "SELECT name FROM dog ORDER BY age DESC LIMIT 1"])
    assert hints.boundaries == {"age": (4,)}
    assert hints.sorted_columns == {"age"}
    for seed in range(6):
        target = tmp_path / f"new{seed}.sqlite"
        make_instance(str(source), target, hints=hints, rows=40, seed=seed)
        connection = sqlite3.connect(target)
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("SELECT count(*) FROM dog WHERE age < 0").fetchone() == (0,)
        ages = {row[0] for row in connection.execute("SELECT age FROM dog")}
        connection.close()
        assert ages >= {3, 4, 5}
        assert read_schema(target) == read_schema(source)
    assert hashlib.sha256(source.read_bytes()).hexdigest() == before


def test_the_same_seed_gives_the_same_rows(root: Path, tmp_path: Path) -> None:
    rows = []
    for name in ("a", "b"):
        target = tmp_path / f"{name}.sqlite"
        make_instance(str(root / "dogs" / "dogs.sqlite"), target, hints=read_hints([GOLD]), rows=40, seed=3)
        with sqlite3.connect(target) as connection:
            rows.append(connection.execute("SELECT * FROM dog").fetchall())
        connection.close()
    assert rows[0] == rows[1]


def test_kept_instances_kill_mutants_that_the_first_one_cannot(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = tmp_path / "golds.jsonl"
    cases.write_text(json.dumps({"db_id": "dogs", "gold_sqls": [GOLD], "denotation": "spider"}) + "\n")
    output = tmp_path / "new"
    config = InstancesConfig(
        input=str(cases), databases=str(root), output=str(output), candidates=4, keep=2, executors=1
    )
    assert run(config) == 0
    (outcome,) = json.loads((output / "instances.json").read_text())
    assert outcome["killed_before"] < outcome["killed_after"] <= outcome["mutants"]
    assert 1 <= len(outcome["kept"]) <= 2
    assert {file.name for file in (output / "dogs").iterdir()} == {"dogs.sqlite", *outcome["kept"]}
    assert "mutants killed" in capsys.readouterr().out
    with pytest.raises(QuorumError, match="not empty"):
        run(config)


def outcome_of(root: Path, output: Path, gold: str, **changes: int) -> dict[str, object]:
    cases = output.with_suffix(".jsonl")
    cases.write_text(json.dumps({"db_id": "dogs", "gold_sqls": [gold], "denotation": "spider"}) + "\n")
    values = {"candidates": 4, "keep": 2, "executors": 1, **changes}
    assert run(InstancesConfig(input=str(cases), databases=str(root), output=str(output), **values)) == 0
    (outcome,) = json.loads((output / "instances.json").read_text())
    return outcome


def test_instances_are_chosen_against_constant_empty_and_literal_answers(root: Path, tmp_path: Path) -> None:
    # No mutant of count(*) but sum(*), which does not run: what a new instance can show is that 3 is a constant.
    outcome = outcome_of(root, tmp_path / "new", "SELECT count(*) FROM owner WHERE 1", mutants_per_gold=1)
    # The constant and the literal answer are one text; the empty one is refuted by the first instance.
    assert (outcome["cheats"], outcome["cheats_killed_before"], outcome["cheats_killed_after"]) == (2, 1, 2)
    assert len(outcome["kept"]) == 1


def test_an_empty_answer_is_a_cheat_where_the_gold_is_empty(root: Path, tmp_path: Path) -> None:
    outcome = outcome_of(root, tmp_path / "new", "SELECT name FROM dog WHERE age = 4")
    assert (outcome["cheats"], outcome["cheats_killed_before"], outcome["cheats_killed_after"]) == (1, 0, 1)


def test_an_existing_instance_refutes_what_it_can(root: Path, tmp_path: Path) -> None:
    (root / "dogs" / "dogs_v1.sqlite").write_bytes((root / "dogs" / "dogs.sqlite").read_bytes())
    with sqlite3.connect(root / "dogs" / "dogs_v1.sqlite") as connection:
        connection.execute("INSERT INTO dog VALUES (4, 'new', 7, 1)")
    connection.close()
    outcome = outcome_of(root, tmp_path / "new", GOLD)
    # one row, empty, two rows; the second instance's three rows, which the first instance refutes
    assert (outcome["cheats"], outcome["cheats_killed_before"]) == (4, 4)


def test_a_gold_that_cannot_be_parsed_is_told_from_its_cheats(root: Path, tmp_path: Path) -> None:
    deep = "SELECT count(*) FROM owner WHERE " + "(" * 30 + "1" + ")" * 30
    outcome = outcome_of(root, tmp_path / "new", deep)
    assert (outcome["golds"], outcome["mutants"], outcome["cheats_killed_after"]) == (1, 0, 2)


def test_cheats_take_no_place_of_mutants(root: Path, tmp_path: Path) -> None:
    few = outcome_of(root, tmp_path / "few", GOLD, mutants_per_gold=1)
    assert (few["mutants"], few["cheats"]) == (1, 3)


def test_a_gold_whose_order_could_not_be_probed_counts_no_kill(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = LosingPool(1)
    pool.loses = lambda query: query.reverse_unordered
    monkeypatch.setattr("rewards.instances.ExecutorPool", lambda count: pool)
    cases = tmp_path / "golds.jsonl"
    cases.write_text(json.dumps({"db_id": "dogs", "gold_sqls": [GOLD], "denotation": "spider"}) + "\n")
    output = str(tmp_path / "new")
    assert run(InstancesConfig(input=str(cases), databases=str(root), output=output, candidates=2, keep=1)) == 0
    (outcome,) = json.loads((tmp_path / "new" / "instances.json").read_text())
    assert (outcome["killed_before"], outcome["killed_after"]) == (0, 0)


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_an_output_that_cannot_be_a_folder_is_refused(root: Path, tmp_path: Path, name: str) -> None:
    cases = tmp_path / "golds.jsonl"
    cases.write_text(json.dumps({"db_id": "dogs", "gold_sqls": [GOLD], "denotation": "spider"}) + "\n")
    (tmp_path / "file").write_text("mine")
    config = InstancesConfig(input=str(cases), databases=str(root), output=str(tmp_path / name), executors=1)
    with pytest.raises(QuorumError, match="cannot be a folder"):
        run(config)
    assert (tmp_path / "file").read_text() == "mine"
