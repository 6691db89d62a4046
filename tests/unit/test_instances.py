"""New instances: consistent, and able to tell a gold from its near misses."""

import hashlib
import json
import sqlite3
import time
from pathlib import Path

import pytest

from conf.errors import QuorumError
from conf.schema.instances import InstancesConfig
from curation.instances import run
from rewards.instances.perturb import InstanceImpossible, make_instance, read_hints
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
    monkeypatch.setattr("curation.instances.ExecutorPool", lambda count: pool)
    cases = tmp_path / "golds.jsonl"
    cases.write_text(json.dumps({"db_id": "dogs", "gold_sqls": [GOLD], "denotation": "spider"}) + "\n")
    output = str(tmp_path / "new")
    assert run(InstancesConfig(input=str(cases), databases=str(root), output=output, candidates=2, keep=1)) == 0
    (outcome,) = json.loads((tmp_path / "new" / "instances.json").read_text())
    assert (outcome["killed_before"], outcome["killed_after"]) == (0, 0)


def test_databases_that_are_no_folder_are_refused_at_once(root: Path, tmp_path: Path) -> None:
    config = config_for(tmp_path, root, "dogs").model_copy(update={"databases": str(tmp_path / "nowhere")})
    with pytest.raises(QuorumError, match="nowhere: no such folder"):
        run(config)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_an_output_that_cannot_be_a_folder_is_refused(root: Path, tmp_path: Path, name: str) -> None:
    cases = tmp_path / "golds.jsonl"
    cases.write_text(json.dumps({"db_id": "dogs", "gold_sqls": [GOLD], "denotation": "spider"}) + "\n")
    (tmp_path / "file").write_text("mine")
    config = InstancesConfig(input=str(cases), databases=str(root), output=str(tmp_path / name), executors=1)
    with pytest.raises(QuorumError, match="cannot be a folder"):
        run(config)
    assert (tmp_path / "file").read_text() == "mine"


DOG_ROWS = ", ".join(f"({i}, 'n{i % 5}', {i % 7}, {i})" for i in range(30))
DOGS = f"CREATE TABLE dog (id INTEGER PRIMARY KEY, name TEXT, age INTEGER, w INT); INSERT INTO dog VALUES {DOG_ROWS};"
ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) AS x FROM c"


def changed(tmp_path: Path, script: str, golds: tuple[str, ...] = (GOLD,), seeds: int = 4) -> list[sqlite3.Connection]:
    """Open instances of a database; each holds rows that it did not, and no integrity is broken."""
    source = tmp_path / "source.sqlite"
    connection = sqlite3.connect(source)
    connection.text_factory = bytes
    connection.executescript(script)
    connection.commit()
    rows = set(connection.execute("SELECT * FROM dog"))
    connection.close()
    copies = []
    for seed in range(seeds):
        target = tmp_path / f"copy{seed}.sqlite"
        make_instance(str(source), target, hints=read_hints(golds), rows=40, seed=seed)
        copy = sqlite3.connect(target)
        assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        copy.text_factory = bytes
        assert set(copy.execute("SELECT * FROM dog")) - rows
        assert not [file.name for file in tmp_path.iterdir() if not file.name.endswith(".sqlite")]
        copies.append(copy)
    return copies


@pytest.mark.parametrize(
    "table",
    [
        "id INTEGER PRIMARY KEY, name TEXT, age INTEGER, rowid TEXT",
        "id INTEGER PRIMARY KEY, name TEXT, age INTEGER, RowId INT UNIQUE",
        "id TEXT PRIMARY KEY, _rowid_ TEXT, age INTEGER, rowid INT",
        "rowid TEXT PRIMARY KEY, _rowid_ TEXT, age INTEGER, oid INT",
        "rowid TEXT, _rowid_ TEXT, age INTEGER, oid INT",
        "id INTEGER PRIMARY KEY, name TEXT, age INTEGER, w INT) WITHOUT ROWID; CREATE TABLE other (x INT",
        "id INTEGER, name TEXT, age INTEGER, w INT, PRIMARY KEY (name, id)) WITHOUT ROWID; CREATE TABLE other (x INT",
    ],
)
def test_rows_are_found_whatever_their_columns_are_called(tmp_path: Path, table: str) -> None:
    rows = ", ".join(f"({i}, 'n{i % 5}', {i % 7}, {i if i % 3 else 'NULL'})" for i in range(30))
    for copy in changed(tmp_path, f"CREATE TABLE dog ({table}); INSERT INTO dog VALUES {rows};"):
        assert {4, 5} <= {row[0] for row in copy.execute("SELECT age FROM dog")}


@pytest.mark.parametrize("ends", ["(9223372036854775807)", "(9223372036854775807), (-9223372036854775808)"])
def test_keys_at_the_end_of_the_integers_leave_others_free(tmp_path: Path, ends: str) -> None:
    script = f"{DOGS} INSERT INTO dog (id) VALUES {ends};"
    for copy in changed(tmp_path, script):
        assert copy.execute("SELECT count(*) FROM dog").fetchone()[0] > 30 + ends.count("(")


def test_literals_beyond_what_sqlite_holds_are_read_as_sqlite_reads_them(tmp_path: Path) -> None:
    golds = (
        "SELECT name FROM dog WHERE age < 9223372036854775807 OR age > 99999999999999999999 OR age > 1e999",
        "SELECT name FROM dog WHERE age > " + "9" * 5000,
        "SELECT age FROM dog WHERE name = '\ud800' OR name = 'a\0b'",
    )
    boundaries = read_hints(golds).boundaries
    assert boundaries == {"age": (9223372036854775807, 1e20), "name": ("a\0b",)}
    ages = {row[0] for copy in changed(tmp_path, DOGS, golds) for row in copy.execute("SELECT age FROM dog")}
    assert {9223372036854775807, 9223372036854775806} <= ages
    assert not {age for age in ages if age is not None and age > 1e30}


@pytest.mark.parametrize("key", ["name TEXT PRIMARY KEY", "name TEXT", "name TEXT NOT NULL UNIQUE"])
def test_text_that_is_not_utf8_keeps_its_bytes(tmp_path: Path, key: str) -> None:
    rows = ", ".join(f"({i % 7}, CAST(x'4dfc6e{i + 64:02x}' AS TEXT))" for i in range(30))
    script = f"CREATE TABLE dog (age INTEGER, {key}); INSERT INTO dog VALUES {rows};"
    for copy in changed(tmp_path, script, (GOLD, "SELECT age FROM dog WHERE name LIKE 'M%'")):
        found = copy.execute("SELECT typeof(name), name FROM dog WHERE name IS NOT NULL").fetchall()
        assert {kind for kind, _ in found} == {b"text"}
        assert {name[:3] for _, name in found if name[:1] == b"M" and name[1:2] not in (b"", b"x")} == {b"M\xfcn"}


def test_triggers_run_or_their_change_is_left_out(tmp_path: Path) -> None:
    for number, body in enumerate(("nosuch(1)", "RAISE(ABORT, 'no')", "RAISE(ROLLBACK, 'no')", "RAISE(IGNORE)")):
        (tmp_path / str(number)).mkdir()
        refusing = f"CREATE TRIGGER tu BEFORE UPDATE ON dog BEGIN SELECT {body}; END;"
        counting = (
            "CREATE TABLE log (id INTEGER PRIMARY KEY);"
            "CREATE TRIGGER ti AFTER INSERT ON dog BEGIN INSERT INTO log VALUES (new.id); END;"
        )
        for copy in changed(tmp_path / str(number), DOGS + refusing + counting):
            assert copy.execute("SELECT count(*) FROM dog WHERE id < 30 AND w IS id").fetchone() == (30,)
            unlogged = "SELECT count(*) FROM dog WHERE id >= 30 AND id NOT IN (SELECT id FROM log)"
            assert copy.execute(unlogged).fetchone() == (0,)


def test_a_trigger_that_removes_rows_is_survived(tmp_path: Path) -> None:
    trigger = "CREATE TRIGGER tu AFTER UPDATE ON dog BEGIN DELETE FROM dog WHERE id % 2 = 1 AND id < 30; END;"
    assert len(changed(tmp_path, DOGS + trigger, seeds=8)) == 8


def test_a_trigger_that_never_ends_leaves_its_table_as_it_was(tmp_path: Path) -> None:
    source = tmp_path / "source.sqlite"
    connection = sqlite3.connect(source)
    connection.executescript(
        f"{DOGS} CREATE TRIGGER ti AFTER INSERT ON dog BEGIN UPDATE dog SET w = ({ENDLESS}); END;"
        "CREATE TABLE cat (id INTEGER PRIMARY KEY, age INT); INSERT INTO cat VALUES (1, 9), (2, 3);"
    )
    connection.close()
    begun = time.process_time()
    make_instance(str(source), tmp_path / "copy.sqlite", hints=read_hints([GOLD]), rows=40, seed=1)
    assert time.process_time() - begun < 60
    copy = sqlite3.connect(tmp_path / "copy.sqlite")
    assert copy.execute("SELECT count(*) FROM dog").fetchone() == (30,)
    assert copy.execute("SELECT count(*) FROM cat").fetchone()[0] > 2


def test_absent_collations_functions_and_modules_cost_their_table_only(tmp_path: Path) -> None:
    source = tmp_path / "source.sqlite"
    connection = sqlite3.connect(source)
    connection.create_collation("german", lambda a, b: (a > b) - (a < b))
    connection.create_function("mine", 1, abs, deterministic=True)
    connection.executescript(
        "CREATE TABLE c (x TEXT COLLATE german UNIQUE, age INT); INSERT INTO c VALUES ('a', 1), ('b', 2);"
        "CREATE TABLE d (x INT, age INT CHECK (mine(age) > 0)); INSERT INTO d VALUES (1, 1);"
        "CREATE TABLE k (x TEXT COLLATE german PRIMARY KEY, age INT) WITHOUT ROWID; INSERT INTO k VALUES ('a', 1);"
        + DOGS
    )
    connection.execute("PRAGMA writable_schema=ON")
    virtual = "CREATE VIRTUAL TABLE v USING nosuch()"
    connection.execute("INSERT INTO sqlite_master VALUES ('table', 'v', 'v', 0, ?)", (virtual,))
    connection.commit()
    connection.close()
    make_instance(str(source), tmp_path / "copy.sqlite", hints=read_hints([GOLD]), rows=40, seed=0)
    copy = sqlite3.connect(tmp_path / "copy.sqlite")
    assert copy.execute("SELECT count(*) FROM dog").fetchone()[0] > 30
    copy.create_collation("german", lambda a, b: (a > b) - (a < b))
    copy.create_function("mine", 1, abs, deterministic=True)
    assert copy.execute("SELECT * FROM k").fetchall() == [("a", 1)]
    assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_generated_columns_follow_and_are_never_written(tmp_path: Path) -> None:
    script = (
        "CREATE TABLE dog (id INTEGER PRIMARY KEY, name TEXT, age INTEGER, w INT, older INT AS (age + 1) STORED,"
        f" oldest INT AS (older + 1)); INSERT INTO dog (id, name, age, w) VALUES {DOG_ROWS};"
    )
    for copy in changed(tmp_path, script, (GOLD, "SELECT name FROM dog WHERE older > 4 AND oldest < 9")):
        assert copy.execute("SELECT count(*) FROM dog WHERE older IS NOT age + 1").fetchone() == (0,)
        assert {4, 5} <= {row[0] for row in copy.execute("SELECT age FROM dog")}


def test_full_text_indexes_agree_with_the_rows_they_are_over(tmp_path: Path) -> None:
    script = (
        "CREATE VIRTUAL TABLE five USING fts5(name, content='dog', content_rowid='id');"
        "INSERT INTO five(five) VALUES ('rebuild');"
        'CREATE VIRTUAL TABLE "fo""ur" USING FTS4(name, content="dog");'
        "CREATE VIRTUAL TABLE own USING fts5(note); INSERT INTO own VALUES ('red fox');"
        "CREATE VIRTUAL TABLE bare5 USING fts5(note, content=''); INSERT INTO bare5(rowid, note) VALUES (7, 'red fox');"
        "CREATE VIRTUAL TABLE bare4 USING fts4(note, content=''); INSERT INTO bare4(docid, note) VALUES (7, 'red fox');"
    )
    for copy in changed(tmp_path, DOGS + script, (GOLD, "SELECT age FROM dog WHERE name = 'ann'")):
        copy.execute("INSERT INTO five(five) VALUES ('integrity-check')")
        for table in ("five", '"fo""ur"'):
            found = copy.execute(f"SELECT rowid FROM {table} WHERE {table} MATCH 'ann'").fetchall()
            assert found == copy.execute("SELECT id FROM dog WHERE lower(name) = 'ann' ORDER BY id").fetchall() != []
        assert copy.execute("SELECT note FROM own WHERE own MATCH 'fox'").fetchall() == [(b"red fox",)]
        for table in ("bare5", "bare4"):
            assert copy.execute(f"SELECT rowid FROM {table} WHERE {table} MATCH 'fox'").fetchall() == [(7,)]


def test_an_index_over_an_endless_view_makes_an_instance_impossible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rewards.instances.perturb.REBUILD_STEPS", 1_000_000)
    source = tmp_path / "source.sqlite"
    connection = sqlite3.connect(source)
    connection.executescript(
        f"{DOGS} CREATE VIEW endless AS {ENDLESS};"
        "CREATE VIRTUAL TABLE search USING fts5(x, content='endless', content_rowid='x');"
    )
    connection.close()
    with pytest.raises(InstanceImpossible, match="the full-text index search takes more than 1000000 VM instructions"):
        make_instance(str(source), tmp_path / "copy.sqlite", hints=read_hints([GOLD]), rows=40, seed=0)


def config_for(tmp_path: Path, root: Path, *db_ids: str) -> InstancesConfig:
    cases = tmp_path / "golds.jsonl"
    lines = (json.dumps({"db_id": db_id, "gold_sqls": [GOLD], "denotation": "spider"}) + "\n" for db_id in db_ids)
    cases.write_text("".join(lines))
    return InstancesConfig(
        input=str(cases), databases=str(root), output=str(tmp_path / "new"), candidates=3, keep=1, executors=1
    )


def test_a_database_that_fails_gives_one_line_and_costs_no_other(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, content in (("broken", b"no database at all" * 100), ("full", (root / "dogs/dogs.sqlite").read_bytes())):
        (root / name).mkdir()
        (root / name / f"{name}.sqlite").write_bytes(content)

    def filled(source: str, target: Path, **settings: object) -> None:
        if Path(source).name == "full.sqlite":
            target.write_text("half")
            raise sqlite3.OperationalError("database or disk is full")
        make_instance(source, target, **settings)

    monkeypatch.setattr("rewards.instances.maker.make_instance", filled)
    config = config_for(tmp_path, root, "absent", "broken", "dogs", "full")
    assert run(config) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["absent", "broken", "full"]
    assert "no database file" in lines[0]
    assert lines[2] == "full: database or disk is full"
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == ["dogs", "instances.json"]
    (outcome,) = json.loads((tmp_path / "new" / "instances.json").read_text())
    assert outcome["kept"]


def test_an_existing_instance_that_cannot_be_read_is_named(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "dogs" / "dogs_v1.sqlite").write_bytes(b"no database at all" * 100)
    assert run(config_for(tmp_path, root, "dogs")) == 1
    assert "dogs_v1.sqlite cannot be read as a SQLite database" in capsys.readouterr().err
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == ["instances.json"]


def test_a_database_without_new_instances_says_why(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "cats").mkdir()
    with sqlite3.connect(root / "cats" / "cats.sqlite") as connection:
        connection.execute("CREATE TABLE cat (name TEXT)")
    connection.close()
    assert run(config_for(tmp_path, root, "cats", "dogs")) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert (
        first
        == "cats: 0 -> 0 of 0 mutants of 0 golds killed, 0 -> 0 of 0 cheats, 0 new instances: none of its golds runs"
    )


def test_an_interruption_leaves_no_half_made_database(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(source: str, target: Path, **settings: object) -> None:
        target.write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr("rewards.instances.maker.make_instance", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(config_for(tmp_path, root, "dogs"))
    assert list((tmp_path / "new").iterdir()) == []


def test_instances_that_exist_keep_their_names_and_contents(root: Path, tmp_path: Path) -> None:
    old = (root / "dogs" / "dogs.sqlite").read_bytes()
    (root / "dogs" / "dogs_x00.sqlite").write_bytes(old)
    assert run(config_for(tmp_path, root, "dogs")) == 0
    assert (tmp_path / "new" / "dogs" / "dogs_x00.sqlite").read_bytes() == old
    (outcome,) = json.loads((tmp_path / "new" / "instances.json").read_text())
    assert outcome["kept"]
    assert "dogs_x00.sqlite" not in outcome["kept"]
