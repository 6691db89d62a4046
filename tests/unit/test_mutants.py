"""Mutants: every kind is made, each differs from its query, and writing a tree back does not change what it does."""

import json
import sqlite3
from pathlib import Path

import pytest

from rewards.instances.mutants import mutants
from rewards.sql.parse import SqlSyntaxError, parse_query
from rewards.sql.schema import Column, DatabaseSchema, Table

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
SCHEMA = DatabaseSchema(
    tables=(
        Table(name="dog", columns=(Column(name="id", type="INT"), Column(name="age", type="INT"))),
        Table(name="cat", columns=(Column(name="id", type="INT"), Column(name="age", type="INT"))),
    )
)


@pytest.mark.parametrize(
    ("sql", "kind", "mutant"),
    [
        ("SELECT id FROM dog WHERE age > 3", "operator", "SELECT id FROM dog WHERE age >= 3"),
        ("SELECT id FROM dog WHERE age > 3", "literal", "SELECT id FROM dog WHERE age > 4"),
        ("SELECT id FROM dog WHERE age > 3", "column", 'SELECT "age" FROM dog WHERE age > 3'),
        ("SELECT id FROM dog WHERE age > 3", "condition", "SELECT id FROM dog"),
        ("SELECT id FROM dog WHERE age > 3", "distinct", "SELECT DISTINCT id FROM dog WHERE age > 3"),
        ("SELECT id FROM dog WHERE age > 3", "table", 'SELECT id FROM "cat" AS "dog" WHERE age > 3'),
        ("SELECT id FROM dog WHERE age = 1 AND id = 2", "connective", "SELECT id FROM dog WHERE (age = 1 OR id = 2)"),
        ("SELECT id FROM dog WHERE NOT age LIKE 1", "negation", "SELECT id FROM dog WHERE (age LIKE 1)"),
        ("SELECT min(age) FROM dog", "aggregate", "SELECT MAX(age) FROM dog"),
        ("SELECT count(age) FROM dog", "distinct", "SELECT COUNT(DISTINCT age) FROM dog"),
        ("SELECT 1 FROM dog JOIN cat ON 1 = 1", "join", "SELECT 1 FROM dog LEFT JOIN cat ON 1 = 1"),
        ("SELECT age FROM dog GROUP BY age, id", "group_by", "SELECT age FROM dog GROUP BY age"),
        ("SELECT age FROM dog GROUP BY age HAVING id > 1", "having", "SELECT age FROM dog GROUP BY age"),
        ("SELECT age FROM dog ORDER BY id", "order", "SELECT age FROM dog ORDER BY id DESC"),
        ("SELECT age FROM dog LIMIT 2", "limit", "SELECT age FROM dog LIMIT 3"),
        ("SELECT 1 UNION SELECT 2", "set_operation", "SELECT 1 UNION ALL SELECT 2"),
        ("SELECT id / age FROM dog", "arithmetic", "SELECT (age / id) FROM dog"),
        ("SELECT iif(id, 1, 2) FROM dog", "case", "SELECT IIF(id, 2, 1) FROM dog"),
        ("SELECT sum(id) OVER (PARTITION BY age) FROM dog", "window", "SELECT SUM(id) OVER () FROM dog"),
        ("SELECT CAST(id AS REAL) FROM dog", "cast", "SELECT CAST(id AS INTEGER) FROM dog"),
        ("SELECT id, age FROM dog", "select", "SELECT age, id FROM dog"),
        (
            "SELECT 1 FROM dog WHERE id IN (SELECT id FROM cat)",
            "column",
            'SELECT 1 FROM dog WHERE id IN (SELECT "age" FROM cat)',
        ),
    ],
)
def test_each_kind(sql: str, kind: str, mutant: str) -> None:
    found = mutants(sql, SCHEMA)
    assert (kind, mutant) in {(m.kind, m.sql) for m in found}
    assert len({m.sql for m in found}) == len(found)
    assert parse_query(sql).sql(dialect="sqlite") not in {m.sql for m in found}
    assert found == mutants(sql, SCHEMA)
    assert mutants(sql, SCHEMA, kinds=[kind]) == [m for m in found if m.kind == kind]


def test_a_comma_stays_a_comma_and_a_cross_join_stays_one() -> None:
    """SQLite may choose the order of tables behind a comma; behind CROSS JOIN it may not."""
    for sql, kept, absent in [
        ("SELECT d.name FROM dog d, owner o WHERE d.id > 1", "dog AS d, owner AS o", "CROSS JOIN"),
        ("SELECT d.name FROM dog d CROSS JOIN owner o WHERE d.id > 1", "dog AS d CROSS JOIN owner AS o", ", owner"),
    ]:
        texts = [mutant.sql for mutant in mutants(sql, SCHEMA, kinds={"operator"})]
        assert texts
        assert all(kept in text and absent not in text for text in texts)


def test_unreadable_sql_is_refused() -> None:
    with pytest.raises(SqlSyntaxError):
        mutants("DROP TABLE dog", SCHEMA)


@pytest.mark.skipif(not (DATA / "spider/dev.json").is_file(), reason="no data kit beside the repository")
def test_a_gold_written_back_gives_the_same_rows() -> None:
    rows = [
        (DATA / "spider/database", r["db_id"], r["query"]) for r in json.loads((DATA / "spider/dev.json").read_text())
    ]
    bird = json.loads((DATA / "bird/dev.json").read_text())
    rows += [(DATA / "bird/dev_databases", r["db_id"], r["SQL"]) for r in bird]
    compared = 0
    for folder, db_id, sql in rows[::10]:
        connection = sqlite3.connect(f"{(folder / db_id / f'{db_id}.sqlite').as_uri()}?mode=ro", uri=True)
        connection.text_factory = bytes
        assert (
            connection.execute(sql).fetchall() == connection.execute(parse_query(sql).sql(dialect="sqlite")).fetchall()
        )
        connection.close()
        compared += 1
    assert compared == 257
