"""The atomic similarity on a small schema: invariances, differences, hostile text, and random SQL against SQLite."""

import sqlite3
import time
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.components.atomic import AtomicComparer
from rewards.sql.schema import Column, DatabaseSchema, Table

SCHEMA = DatabaseSchema(
    tables=(
        Table(
            name="dog", columns=tuple(Column(name=n, type="TEXT") for n in ("id", "name", "Age", "owner id", "breed"))
        ),
        Table(name="owner", columns=tuple(Column(name=n, type="TEXT") for n in ("id", "name", "city"))),
        Table(name="visit", columns=tuple(Column(name=n, type="INTEGER") for n in ("dog", "cost", "year"))),
    )
)
COMPARER = AtomicComparer(SCHEMA)


def similarity(left: str, right: str) -> float:
    score = COMPARER.similarity(left, right)
    assert score.similarity == COMPARER.similarity(right, left).similarity
    assert not score.token_fallback
    return score.similarity


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("SELECT name FROM dog", "select T1.NAME from Dog as T1;"),
        ("SELECT name FROM dog WHERE age > 3", "SELECT name FROM dog WHERE (3 < (age))"),
        ("SELECT name FROM dog WHERE name = 'x'", "SELECT name FROM dog WHERE 'x' == dog.name"),
        ("SELECT name FROM dog WHERE name = 'x'", 'SELECT name FROM dog WHERE name = "x"'),
        (
            "SELECT 1 FROM dog WHERE age=1 AND (breed='a' OR id=2)",
            "SELECT 1 FROM dog WHERE (id=2 OR breed='a') AND age=1",
        ),
        ("SELECT d.name FROM dog d JOIN owner o ON d.id=o.id", "SELECT a.name FROM owner b, dog a WHERE b.id=a.id"),
        (
            "SELECT a.name FROM dog a JOIN dog b ON a.id = b.age JOIN owner o ON o.id = b.id",
            "SELECT y.name FROM owner p JOIN dog x JOIN dog y ON y.id = x.age AND x.id = p.id",
        ),
        ("SELECT * FROM dog", "SELECT id, name, age, [owner id], `breed` FROM dog"),
        ("SELECT d.* FROM dog AS d", "SELECT * FROM dog"),
        (
            "SELECT count(*) AS n FROM dog GROUP BY breed ORDER BY n",
            "SELECT COUNT(*) FROM dog GROUP BY breed ORDER BY 1",
        ),
        ("SELECT breed FROM dog GROUP BY 1 ORDER BY breed ASC", "SELECT breed AS b FROM dog GROUP BY breed ORDER BY b"),
        (
            "WITH a AS (SELECT id AS i FROM dog) SELECT i FROM a",
            "WITH bb(k) AS (SELECT id FROM dog) SELECT bb.k FROM bb",
        ),
        ("SELECT x.n FROM (SELECT name AS n FROM dog) x", "SELECT m FROM (SELECT name m FROM dog) AS y"),
        (
            "SELECT name FROM dog d WHERE EXISTS (SELECT 1 FROM visit v WHERE v.dog = d.id)",
            "SELECT name FROM dog WHERE EXISTS (SELECT 1 FROM visit WHERE dog.id = dog)",
        ),
        ("SELECT CAST(age AS FLOAT) FROM dog", "SELECT CAST(age AS REAL) FROM dog"),
        ("SELECT 1 LIMIT 2, 3", "SELECT 1 LIMIT 3 OFFSET 2"),
        (
            "SELECT 1 FROM dog LEFT JOIN owner ON dog.id = owner.id",
            "SELECT 1 FROM dog LEFT OUTER JOIN owner o ON o.id = dog.id",
        ),
    ],
)
def test_same_meaning_is_1(left: str, right: str) -> None:
    assert similarity(left, right) == 1.0


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("SELECT name FROM dog", "SELECT name FROM owner"),
        ("SELECT name FROM dog", "SELECT breed FROM dog"),
        ("SELECT 1", "SELECT 2"),
        ("SELECT sum(age) FROM dog", "SELECT avg(age) FROM dog"),
        ("SELECT count(id) FROM dog", "SELECT count(DISTINCT id) FROM dog"),
        ("SELECT name FROM dog", "SELECT DISTINCT name FROM dog"),
        ("SELECT name FROM dog WHERE age > 3", "SELECT name FROM dog WHERE age >= 3"),
        ("SELECT name FROM dog WHERE age > 3", "SELECT name FROM dog WHERE age < 3"),
        ("SELECT name FROM dog WHERE name = 'x'", "SELECT name FROM dog WHERE name = 'X'"),
        ("SELECT name FROM dog WHERE name LIKE 'x'", "SELECT name FROM dog WHERE name NOT LIKE 'x'"),
        ("SELECT 1 FROM dog JOIN owner ON dog.id = owner.id", "SELECT 1 FROM dog LEFT JOIN owner ON dog.id = owner.id"),
        (
            "SELECT 1 FROM dog LEFT JOIN owner ON dog.id=owner.id",
            "SELECT 1 FROM owner LEFT JOIN dog ON dog.id=owner.id",
        ),
        ("SELECT 1 FROM dog LEFT JOIN owner ON age = 1", "SELECT 1 FROM dog LEFT JOIN owner WHERE age = 1"),
        ("SELECT breed, count(*) FROM dog GROUP BY breed", "SELECT breed, count(*) FROM dog GROUP BY age"),
        (
            "SELECT breed FROM dog GROUP BY breed HAVING count(*) > 1",
            "SELECT breed FROM dog WHERE age > 1 GROUP BY breed",
        ),
        ("SELECT name FROM dog ORDER BY age", "SELECT name FROM dog ORDER BY age DESC"),
        ("SELECT name FROM dog ORDER BY age, id", "SELECT name FROM dog ORDER BY id, age"),
        ("SELECT name FROM dog LIMIT 1", "SELECT name FROM dog LIMIT 2"),
        ("SELECT name FROM dog LIMIT 1", "SELECT name FROM dog LIMIT 1 OFFSET 1"),
        ("SELECT id FROM dog UNION SELECT id FROM owner", "SELECT id FROM dog UNION ALL SELECT id FROM owner"),
        ("SELECT id FROM dog EXCEPT SELECT id FROM owner", "SELECT id FROM owner EXCEPT SELECT id FROM dog"),
        (
            "SELECT 1 FROM dog WHERE id IN (SELECT dog FROM visit)",
            "SELECT 1 FROM dog WHERE id IN (SELECT cost FROM visit)",
        ),
        (
            "SELECT 1 FROM dog WHERE id IN (SELECT dog FROM visit)",
            "SELECT 1 FROM dog WHERE id IN ((SELECT dog FROM visit))",
        ),
        ("WITH a AS (SELECT id FROM dog) SELECT id FROM a", "WITH a AS (SELECT id FROM owner) SELECT id FROM a"),
        ("SELECT x.n FROM (SELECT name n FROM dog) x", "SELECT x.n FROM (SELECT breed n FROM dog) x"),
        ("SELECT cost / year FROM visit", "SELECT year / cost FROM visit"),
        ("SELECT cost - (year - dog) FROM visit", "SELECT cost - year - dog FROM visit"),
        ("SELECT substr(name, 1, 2) FROM dog", "SELECT substr(name, 1, 3) FROM dog"),
        ("SELECT iif(age > 1, 'a', 'b') FROM dog", "SELECT iif(age > 1, 'b', 'a') FROM dog"),
        ("SELECT CASE WHEN age THEN 1 ELSE 2 END FROM dog", "SELECT CASE WHEN age THEN 1 ELSE 3 END FROM dog"),
        ("SELECT CASE age WHEN 1 THEN 2 END FROM dog", "SELECT CASE WHEN age THEN 2 END FROM dog"),
        (
            "SELECT rank() OVER (PARTITION BY breed ORDER BY age) FROM dog",
            "SELECT rank() OVER (PARTITION BY name ORDER BY age) FROM dog",
        ),
        (
            "SELECT sum(age) OVER (ORDER BY id ROWS 1 PRECEDING) FROM dog",
            "SELECT sum(age) OVER (ORDER BY id ROWS 2 PRECEDING) FROM dog",
        ),
        ("SELECT a.name FROM dog a JOIN dog b ON a.id = b.age", "SELECT b.name FROM dog a JOIN dog b ON a.id = b.age"),
        ("SELECT CAST(age AS INT) FROM dog", "SELECT CAST(age AS TEXT) FROM dog"),
        ("SELECT CAST(age AS STRING) FROM dog", "SELECT CAST(age AS TEXT) FROM dog"),
        ("SELECT name, age FROM dog", "SELECT age, name FROM dog"),
        (
            "SELECT 1 FROM dog WHERE age = 1 AND age = 1 OR id = 2",
            "SELECT 1 FROM dog WHERE age = 1 AND (age = 1 OR id = 2)",
        ),
        ("SELECT name FROM dog WHERE breed = 'name'", "SELECT name FROM dog WHERE breed = name"),
        ('SELECT "name" FROM dog', "SELECT 'name' FROM dog"),
        ("SELECT age FROM dog WHERE name COLLATE nocase = 'x'", "SELECT age FROM dog WHERE name = 'x'"),
        (
            "SELECT name FROM dog WHERE EXISTS (SELECT 1 FROM visit WHERE dog.id = dog)",
            "SELECT name FROM dog WHERE EXISTS (SELECT 1 FROM visit JOIN dog WHERE dog.id = visit.dog)",
        ),
        ("SELECT 1.0", "SELECT 1"),
        (
            "SELECT 1 FROM dog a WHERE EXISTS (SELECT 1 FROM dog b WHERE a.id > 3)",
            "SELECT 1 FROM dog a WHERE EXISTS (SELECT 1 FROM dog b WHERE b.id > 3)",
        ),
        ("SELECT count(*) FROM dog NATURAL JOIN owner", "SELECT count(*) FROM dog JOIN owner"),
        ("SELECT count(*) FROM dog JOIN owner USING (id)", "SELECT count(*) FROM dog JOIN owner USING (name)"),
    ],
)
def test_a_change_of_meaning_is_below_1(left: str, right: str) -> None:
    assert 0.0 <= similarity(left, right) < 1.0


def test_known_value() -> None:
    """SELECT a FROM t against SELECT b FROM t, by hand: what both have over what either has.

    Shared: the source as a whole (6), its atom in FROM (1) and anywhere (1). Own, on each side: the item (6), its atom
    (1 + 1) and the exact form (2).
    """
    assert similarity("SELECT id FROM dog", "SELECT age FROM dog") == pytest.approx(8 / (8 + 10 + 10))


def test_more_changes_score_lower() -> None:
    gold = "SELECT name FROM dog WHERE age > 3 AND breed = 'a' ORDER BY id LIMIT 1"
    once = "SELECT name FROM dog WHERE age > 4 AND breed = 'a' ORDER BY id LIMIT 1"
    twice = "SELECT name FROM dog WHERE age > 4 AND breed = 'b' ORDER BY id LIMIT 1"
    thrice = "SELECT name FROM dog WHERE age > 4 AND breed = 'b' ORDER BY id DESC LIMIT 1"
    other = "SELECT count(*) FROM owner"
    scores = [similarity(gold, sql) for sql in (gold, once, twice, thrice, other)]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == len(scores)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT name FROM dog WHERE",
        "I think the answer is 42",
        "SELECT " + "(" * 5000 + "1" + ")" * 5000,
        "SELECT 'x' || " * 60_000,
        "SELECT name FROM dog \x00",
        "SELECT a FROM t " + "JOIN t " * 500,
        "SELECT 1 " + "NOT NULL " * 300,
        "DROP TABLE dog",
        "",
    ],
)
def test_unreadable_text_falls_back_to_tokens(sql: str) -> None:
    started = time.process_time()
    gold = "SELECT name FROM dog WHERE age > 3"
    same, other = COMPARER.similarity(sql, sql), COMPARER.similarity(gold, sql)
    assert (same.similarity, same.token_fallback) == (1.0, True)
    assert other.token_fallback
    assert 0.0 <= other.similarity < 1.0
    assert time.process_time() - started < 3.0


def test_token_fallback_sees_order() -> None:
    score = COMPARER.similarity("SELECT a a b FROM WHERE", "SELECT a b a FROM WHERE")
    assert score.token_fallback
    assert 0.0 < score.similarity < 1.0


COLUMNS = ("id", "name", "age", "breed")
OPERATORS = ("=", "<>", "<", ">=", "+", "-", "*", "/", "||", "&", "IS", "IS NOT", "LIKE", "AND", "OR", "%", "<<")


def expressions() -> st.SearchStrategy[str]:
    atoms = st.sampled_from((*COLUMNS, "d.id", "d.age", "1", "2", "'a'", "NULL", '"a"', "'1'"))
    return st.recursive(
        atoms,
        lambda inner: st.one_of(
            st.builds("{} {} {}".format, inner, st.sampled_from(OPERATORS), inner),
            st.builds("({} {} {})".format, inner, st.sampled_from(OPERATORS), inner),
            st.builds("NOT {}".format, inner),
            st.builds("- {}".format, inner),
            st.builds("{} IS NULL".format, inner),
            st.builds("{} BETWEEN {} AND {}".format, inner, inner, inner),
            st.builds("{} IN ({}, {})".format, inner, inner, inner),
            st.builds("CASE WHEN {} THEN {} ELSE {} END".format, inner, inner, inner),
            st.builds("coalesce({}, {})".format, inner, inner),
        ),
        max_leaves=6,
    )


@pytest.fixture(scope="module")
def dogs() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    connection.execute('CREATE TABLE dog (id INTEGER, name TEXT, Age INTEGER, "owner id" INTEGER, breed TEXT)')
    rows = [
        (1, "a", 3, 1, "x"),
        (2, "b", None, 2, "a"),
        (3, None, 0, None, "1"),
        (-1, "1", 2, 1, None),
        (0, "A", 5, 3, ""),
    ]
    connection.executemany("INSERT INTO dog VALUES (?, ?, ?, ?, ?)", rows)
    return connection


def rows(connection: sqlite3.Connection, sql: str) -> object:
    try:
        return Counter(connection.execute(sql).fetchall())
    except sqlite3.Error as error:
        return type(error).__name__


@settings(max_examples=150, deadline=None)
@given(left=expressions(), data=st.data())
def test_equal_forms_give_equal_results(dogs: sqlite3.Connection, left: str, data: st.DataObject) -> None:
    """Parentheses put in and taken out at random: where the similarity says 1, SQLite must agree."""
    tokens = left.split(" ")
    dropped = data.draw(st.integers(0, 2))
    if dropped == 0:
        right = left.replace("(", " ").replace(")", " ") if "coalesce" not in left and " IN " not in left else left
    elif dropped == 1 and len(tokens) >= 3:
        start = data.draw(st.integers(0, len(tokens) - 1))
        end = data.draw(st.integers(start, len(tokens) - 1))
        right = " ".join([*tokens[:start], "(", *tokens[start : end + 1], ")", *tokens[end + 1 :]])
    else:
        right = data.draw(expressions())
    ours, theirs = f"SELECT {left} FROM dog d", f"SELECT {right} FROM dog AS d"
    score = COMPARER.similarity(ours, theirs)
    if score.similarity == 1.0:
        assert rows(dogs, ours) == rows(dogs, theirs), (ours, theirs)
    assert COMPARER.similarity(ours, ours).similarity == 1.0
