"""What read_schema says of databases whose schemas are not plain tables, and which files are instances."""

import os
import sqlite3
import time
from pathlib import Path

import pytest

from benchmarks.carriers import BenchmarkError
from benchmarks.scoring.runner import Runner
from benchmarks.scoring.schemas import read_schemas
from conf.schema.benchmark import BenchmarkExecution
from rewards.components.atomic import AtomicComparer
from rewards.instances.mutants import mutants
from rewards.sql.files import expected_files, instance_files
from rewards.sql.schema import Column, DatabaseUnreadable, ForeignKey, Table, read_schema
from tests.unit.losing_pool import LosingPool

ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"


def made(folder: Path, script: str) -> Path:
    file = folder / "made.sqlite"
    connection = sqlite3.connect(file)
    connection.executescript(script)
    connection.commit()
    connection.close()
    return file


def master_row(file: Path, kind: str, name: str, sql: str) -> None:
    """A line of the schema that this SQLite would refuse to make."""
    connection = sqlite3.connect(file)
    connection.execute("PRAGMA writable_schema=ON")
    connection.execute("INSERT INTO sqlite_master VALUES (?, ?, ?, 0, ?)", (kind, name, name, sql))
    connection.commit()
    connection.close()


def described(file: Path) -> dict[str, list[str]]:
    return {table.name: [column.name for column in table.columns] for table in read_schema(file).tables}


def keys(file: Path, table: str) -> set[tuple[str, str, str]]:
    (found,) = [t for t in read_schema(file).tables if t.name == table]
    return {(key.column, key.other_table, key.other_column) for key in found.foreign_keys}


def test_a_key_that_names_no_columns_means_the_primary_key_of_its_parent(tmp_path: Path) -> None:
    file = made(
        tmp_path,
        "CREATE TABLE Country (code TEXT PRIMARY KEY, name TEXT);"
        "CREATE TABLE person (id INT PRIMARY KEY, name TEXT REFERENCES COUNTRY, born TEXT REFERENCES country(CODE));"
        "CREATE TABLE seat (hall INT, row INT, PRIMARY KEY (row, hall));"
        "CREATE TABLE ticket (h INT, r INT, FOREIGN KEY (r, h) REFERENCES seat);",
    )
    assert keys(file, "person") == {("name", "Country", "code"), ("born", "Country", "CODE")}
    assert keys(file, "ticket") == {("r", "seat", "row"), ("h", "seat", "hall")}


@pytest.mark.parametrize(
    "parent",
    ["other (x INT)", "parent (a INT, b INT, PRIMARY KEY (a, b))", "parent (a INT, b INT)"],
    ids=["missing", "two columns", "no primary key"],
)
def test_a_key_that_means_no_primary_key_is_none(tmp_path: Path, parent: str) -> None:
    file = made(tmp_path, f"CREATE TABLE {parent}; CREATE TABLE child (a INT REFERENCES parent);")
    assert keys(file, "child") == set()


def test_a_view_is_no_parent(tmp_path: Path) -> None:
    file = made(
        tmp_path,
        "CREATE TABLE t (id INT); CREATE VIEW parent AS SELECT id FROM t; CREATE TABLE c (a REFERENCES parent)",
    )
    assert keys(file, "c") == set()


def test_generated_columns_and_views_are_read(tmp_path: Path) -> None:
    file = made(
        tmp_path,
        "CREATE VIEW dear AS SELECT id, total AS cost FROM item;"
        "CREATE TABLE item (id INTEGER PRIMARY KEY, price REAL, total REAL AS (price * 2),"
        " tax REAL GENERATED ALWAYS AS (price / 5) STORED);",
    )
    assert read_schema(file).tables == (
        Table(
            name="item",
            columns=(
                Column(name="id", type="INTEGER", primary_key=True),
                Column(name="price", type="REAL"),
                Column(name="total", type="REAL", generated=True),
                Column(name="tax", type="REAL", generated=True),
            ),
        ),
        Table(
            name="dear",
            columns=(Column(name="id", type="INTEGER"), Column(name="cost", type="REAL")),
            kind="view",
        ),
    )


def test_views_and_generated_columns_resolve_in_comparisons_and_have_mutants(tmp_path: Path) -> None:
    schema = read_schema(
        made(
            tmp_path,
            "CREATE TABLE item (id INT, price REAL, total REAL AS (price * 2));"
            "CREATE VIEW v AS SELECT id, total FROM item;",
        )
    )
    comparer = AtomicComparer(schema)
    assert comparer.similarity("SELECT * FROM v", "SELECT v.id, total FROM v").similarity == 1.0
    assert comparer.similarity("SELECT * FROM item", "SELECT id, price, item.total FROM item").similarity == 1.0
    assert 'SELECT "total" FROM v' in [mutant.sql for mutant in mutants("SELECT id FROM v", schema, kinds=["column"])]


def test_shadow_tables_are_left_out_and_virtual_tables_show_what_a_star_shows(tmp_path: Path) -> None:
    file = made(
        tmp_path,
        "CREATE VIRTUAL TABLE five USING fts5(note); CREATE VIRTUAL TABLE four USING fts4(memo);"
        "CREATE VIRTUAL TABLE box USING rtree(id, low, high); CREATE TABLE five_notes (x INT);"
        "CREATE TABLE counted (id INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO counted DEFAULT VALUES; ANALYZE;",
    )
    assert described(file) == {
        "five": ["note"],
        "four": ["memo"],
        "box": ["id", "low", "high"],
        "five_notes": ["x"],
        "counted": ["id"],
    }
    assert [table.kind for table in read_schema(file).tables] == ["virtual", "virtual", "virtual", "table", "table"]


@pytest.mark.parametrize(
    ("kind", "sql"),
    [
        ("table", "CREATE VIRTUAL TABLE bad USING VirtualSpatialIndex()"),
        ("table", "CREATE VIRTUAL TABLE bad USING fts4(a, tokenize=mine)"),
        ("view", "CREATE VIEW bad AS SELECT nosuch FROM dog"),
        ("view", "CREATE VIEW bad AS SELECT nosuch(name) FROM dog"),
        ("view", "CREATE VIEW bad AS SELECT name FROM dog ORDER BY name COLLATE german"),
        ("view", "CREATE VIEW bad AS SELECT * FROM bad"),
    ],
)
def test_a_relation_that_cannot_be_described_is_left_out_alone(tmp_path: Path, kind: str, sql: str) -> None:
    file = made(tmp_path, "CREATE TABLE dog (id INT, name TEXT); CREATE VIEW names AS SELECT name FROM dog;")
    master_row(file, kind, "bad", sql)
    assert described(file) == {"dog": ["id", "name"], "names": ["name"]}


def test_an_absent_collation_hides_nothing(tmp_path: Path) -> None:
    file = tmp_path / "made.sqlite"
    connection = sqlite3.connect(file)
    connection.create_collation("german", lambda a, b: (a > b) - (a < b))
    connection.executescript("CREATE TABLE c (x TEXT COLLATE german PRIMARY KEY, y INT);")
    connection.close()
    assert described(file) == {"c": ["x", "y"]}


def test_names_that_are_not_utf8_are_left_out(tmp_path: Path) -> None:
    file = made(tmp_path, "CREATE TABLE dog (id INT, naxme TEXT); CREATE TABLE caxt (id INT);")
    content = file.read_bytes()
    assert (content.count(b"naxme"), content.count(b"caxt")) == (1, 3)
    file.write_bytes(content.replace(b"naxme", b"na\xe9me").replace(b"caxt", b"ca\xe9t"))
    assert described(file) == {"dog": ["id"]}


def test_a_declared_type_is_one_line(tmp_path: Path) -> None:
    file = made(tmp_path, "CREATE TABLE t (a double\n  precision)")
    assert read_schema(file).tables[0].columns == (Column(name="a", type="DOUBLE PRECISION"),)


def test_columns_that_differ_in_a_letter_beyond_ascii_are_two(tmp_path: Path) -> None:
    file = made(tmp_path, 'CREATE TABLE p ("É" INT PRIMARY KEY, "é" INT); CREATE TABLE c (x INT REFERENCES P("É"))')
    (child,) = [table for table in read_schema(file).tables if table.name == "c"]
    assert child.foreign_keys == (ForeignKey(column="x", other_table="p", other_column="É"),)


def test_damage_is_an_error(tmp_path: Path) -> None:
    file = made(tmp_path, "CREATE TABLE dog (id INT)")
    content = bytearray(file.read_bytes())
    content[100:108] = b"\xff" * 8
    file.write_bytes(content)
    with pytest.raises(DatabaseUnreadable):
        read_schema(file)


def test_a_database_whose_indexes_read_an_endless_view_is_described_in_time(tmp_path: Path) -> None:
    file = made(
        tmp_path,
        f"CREATE TABLE dog (id INT); CREATE VIEW endless AS {ENDLESS};"
        "CREATE VIRTUAL TABLE search USING fts5(x, content='endless');",
    )
    begun = time.process_time()
    assert described(file)["dog"] == ["id"]
    assert time.process_time() - begun < 10


@pytest.mark.parametrize("body", ["SELECT a.x FROM {0} a JOIN {0} b", "SELECT x FROM {0} UNION ALL SELECT x FROM {0}"])
def test_views_that_read_views_twice_are_left_out_where_compiling_them_would_not_end(tmp_path: Path, body: str) -> None:
    views = "".join(f"CREATE VIEW v{i} AS {body.format(f'v{i - 1}')};" for i in range(1, 16))
    file = made(
        tmp_path, f"CREATE TABLE t(x); CREATE VIEW v0 AS SELECT x FROM t; {views} CREATE VIEW w AS SELECT x FROM t"
    )
    began = time.monotonic()
    names = [table.name for table in read_schema(file).tables]
    assert time.monotonic() - began < 30
    assert (names[:3], "v15" in names, names[-1]) == (["t", "v0", "v1"], False, "w")


def test_instances_are_regular_files_whose_names_begin_with_no_dot(tmp_path: Path) -> None:
    folder = tmp_path / "dogs"
    folder.mkdir()
    for name in ("dogs.sqlite", "b.sqlite", "a.sqlite", "._dogs.sqlite", ".a.sqlite", "a.sqlite-wal", "c.db"):
        (folder / name).touch()
    os.mkfifo(folder / "pipe.sqlite")
    (folder / "folder.sqlite").mkdir()
    (folder / "link.sqlite").symlink_to(folder / "a.sqlite")
    (folder / "broken.sqlite").symlink_to(folder / "nothing")
    names = ["dogs.sqlite", "a.sqlite", "b.sqlite", "link.sqlite"]
    assert [Path(file).name for file in instance_files(tmp_path, "dogs")] == names
    (folder / "dogs.sqlite").unlink()
    assert instance_files(tmp_path, "dogs") == ()
    assert [Path(file).name for file in expected_files(tmp_path, "dogs")] == names
    os.mkfifo(folder / "dogs.sqlite")
    assert instance_files(tmp_path, "dogs") == ()
    with pytest.raises(DatabaseUnreadable):
        read_schema(expected_files(tmp_path, "dogs")[0])
    assert expected_files(tmp_path, "cats") == (str(tmp_path / "cats" / "cats.sqlite"),)


def test_spiders_schema_has_tables_only_and_no_table_loses_its_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = str(made(tmp_path, "CREATE TABLE Dog (Id INT, Name TEXT); CREATE VIEW names AS SELECT name FROM dog;"))
    pool = LosingPool(1)
    monkeypatch.setattr("benchmarks.scoring.runner.ExecutorPool", lambda count: pool)
    with Runner(BenchmarkExecution(executors=1), "strict") as runner:
        assert read_schemas({"dogs": file}, runner) == {"dogs": {"dog": ["id", "name"]}}
        pool.loses = lambda query: "LIMIT 0" in query.sql
        with pytest.raises(BenchmarkError, match="a readable SQLite database expected at .*: lost"):
            read_schemas({"dogs": file}, runner)
