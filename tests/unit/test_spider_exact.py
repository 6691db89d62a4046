"""The Spider parser, hardness and exact set match on a schema small enough to see."""

import pytest

from benchmarks.metrics.spider.exact import exact_match, foreign_key_families
from benchmarks.metrics.spider.hardness import hardness
from benchmarks.metrics.spider.parser import parse
from benchmarks.metrics.spider.tokens import tokenize
from benchmarks.metrics.spider.tree import Refused

SCHEMA = {"singer": ["id", "name", "age"], "song": ["id", "singer_id", "title"]}
TABLES = {
    "table_names_original": ["Singer", "Song"],
    "column_names_original": [[-1, "*"], [0, "Id"], [0, "Name"], [0, "Age"], [1, "Id"], [1, "Singer_Id"], [1, "Title"]],
    "foreign_keys": [[5, 1]],
}
SAME = foreign_key_families(TABLES)


def match(gold: str, predicted: str) -> bool:
    return exact_match(parse(gold, SCHEMA), parse(predicted, SCHEMA), SAME)


def test_foreign_key_families() -> None:
    assert SAME == {"singer.id": "singer.id", "song.singer_id": "singer.id"}


def test_tokens_of_the_english_tokenizer() -> None:
    assert tokenize("SELECT Count(*) FROM t WHERE a>=1 AND b >= 2 AND c ! = 'It is'") == [
        *("select", "count", "(", "*", ")", "from", "t", "where", "a", ">", "=1", "and", "b", ">=", "2"),
        *("and", "c", "!=", '"It is"'),
    ]
    assert tokenize("a,b ,1,2;") == ["a", ",", "b", ",1,2", ";"]
    with pytest.raises(Refused, match="quotation mark"):
        tokenize("SELECT 'it''s")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT name FROM singer WHERE age <> 1",
        "SELECT name FROM singer LEFT JOIN song ON singer.id = song.singer_id",
        "SELECT T.name FROM singer T",
        "SELECT count(1) FROM singer",
        "SELECT CAST(age AS INT) FROM singer",
        "SELECT `name` FROM singer",
        'SELECT "name" FROM singer',
        "SELECT name FROM singer WHERE name = 'O''Hara'' '",
        "SELECT name FROM singer WHERE age IS NULL",
        "SELECT name FROM singer WHERE id IN (1, 2)",
        "SELECT name FROM singer, song",
        "SELECT name FROM singer AS song",
        "SELECT nam FROM singer",
        "SELECT name",
        "",
        "SELECT name FROM singer WHERE",
    ],
)
def test_refusals(sql: str) -> None:
    if sql.endswith("WHERE"):
        assert parse(sql, SCHEMA).where == ()
        return
    with pytest.raises(Refused):
        parse(sql, SCHEMA)


def test_what_follows_the_statement_is_ignored() -> None:
    assert match("SELECT name FROM singer LIMIT 1", "SELECT name FROM singer LIMIT 3 OFFSET 2")


@pytest.mark.parametrize(
    ("gold", "predicted", "expected"),
    [
        ("SELECT name , age FROM singer", "SELECT AGE , Name FROM Singer", True),
        ("SELECT name FROM singer WHERE age > 20", "SELECT name FROM singer WHERE age > 99", True),
        ("SELECT name FROM singer WHERE age > 20", "SELECT name FROM singer WHERE age >= 20", False),
        ("SELECT DISTINCT name FROM singer", "SELECT name FROM singer", True),
        ("SELECT max(age) FROM singer", "SELECT min(age) FROM singer", False),
        ("SELECT name FROM singer ORDER BY age", "SELECT name FROM singer ORDER BY age ASC", True),
        ("SELECT name FROM singer ORDER BY age", "SELECT name FROM singer ORDER BY age DESC", False),
        (
            "SELECT T1.name FROM singer AS T1 JOIN song AS T2 ON T1.id = T2.singer_id WHERE T1.id = 1",
            "SELECT A.name FROM song AS B JOIN singer AS A ON A.age = B.id WHERE B.singer_id = 2",
            True,
        ),
        (
            "SELECT name FROM singer WHERE id IN (SELECT singer_id FROM song WHERE id > 1)",
            "SELECT name FROM singer WHERE id IN (SELECT singer_id FROM song WHERE id > 2)",
            True,
        ),
        (
            "SELECT name FROM singer WHERE id IN (SELECT singer_id FROM song)",
            "SELECT name FROM singer WHERE id IN (SELECT DISTINCT singer_id FROM song)",
            False,
        ),
        (
            "SELECT count(*) FROM (SELECT name FROM singer WHERE age > 1)",
            "SELECT count(*) FROM (SELECT name FROM singer WHERE age > 2)",
            False,
        ),
        (
            "SELECT name FROM singer EXCEPT SELECT title FROM song",
            "SELECT title FROM song EXCEPT SELECT name FROM singer",
            False,
        ),
        (
            "SELECT age FROM singer WHERE id = 1 OR age = 2 AND name = 'a'",
            "SELECT age FROM singer WHERE name = 'a' AND id = 1 OR age = 2",
            True,
        ),
        ("SELECT age FROM singer GROUP BY age", "SELECT age FROM singer GROUP BY age HAVING count(*) > 1", False),
        ("SELECT name FROM singer LIMIT 1", "SELECT name FROM singer", False),
    ],
)
def test_exact_set_match(gold: str, predicted: str, expected: bool) -> None:
    assert match(gold, predicted) is expected


@pytest.mark.parametrize(
    ("sql", "level"),
    [
        ("SELECT count(*) FROM singer", "easy"),
        ("SELECT name FROM singer WHERE age > 1", "easy"),
        ("SELECT name , age FROM singer", "medium"),
        ("SELECT name , age FROM singer ORDER BY age LIMIT 1", "medium"),
        ("SELECT name FROM singer WHERE age > (SELECT avg(age) FROM singer)", "hard"),
        ("SELECT name , age FROM singer WHERE age = 1 ORDER BY age LIMIT 1", "hard"),
        ("SELECT name , age FROM singer WHERE age > (SELECT avg(age) FROM singer)", "extra"),
    ],
)
def test_hardness(sql: str, level: str) -> None:
    assert hardness(parse(sql, SCHEMA)) == level
