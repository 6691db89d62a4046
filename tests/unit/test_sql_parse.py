"""Extraction, canonical text and bounded parsing: known answers, hostile texts, and a check against SQLite itself."""

import json
import sqlite3
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rewards.sql import parse
from rewards.sql.parse import (
    Extraction,
    SqlSyntaxError,
    SqlTooComplex,
    canonical,
    extract_sql,
    has_top_level_order_by,
    parse_query,
)

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(not (DATA / "spider/dev.json").is_file(), reason="no data kit beside the repository")


@pytest.mark.parametrize(
    ("completion", "sql", "reasoning", "well_formed"),
    [
        ("<think>why</think>SELECT 1", "SELECT 1", "why", True),
        (" \n<think>\nwhy\n</think>\n\nSELECT 1;\n", "SELECT 1;", "why", True),
        ("<think>why</think>\n```sql\nSELECT 1\n```\n", "SELECT 1", "why", True),
        ("<think>why</think>\n```\nSELECT 1```", "SELECT 1", "why", True),
        ("<think>SELECT 1</think>", None, "SELECT 1", False),
        ("<think>SELECT 1</think>```sql\n```", None, "SELECT 1", False),
        ("<think>SELECT 1", None, "", False),
        ("SELECT 1", "SELECT 1", "", False),
        ("why</think>SELECT 1", "SELECT 1", "why", False),
        ("so <think>why</think>SELECT 1", "SELECT 1", "why", False),
        ("<think>a</think><think>b</think>SELECT 1", "SELECT 1", "a</think><think>b", False),
        ("<think>a</think>SELECT 1<think>", None, "a", False),
        ("<think>a</think>SELECT 1</think>SELECT 2", "SELECT 2", "a</think>SELECT 1", False),
        ("", None, "", False),
    ],
)
def test_extraction_with_thinking(completion: str, sql: str | None, reasoning: str, well_formed: bool) -> None:
    found = extract_sql(completion, thinking=True)
    assert (found.sql, found.reasoning, found.well_formed) == (sql, reasoning, well_formed)


def test_extraction_without_thinking_takes_the_whole_completion() -> None:
    found = extract_sql("```SQL\nSELECT 1\n```", thinking=False)
    assert (found.sql, found.reasoning, found.well_formed) == ("SELECT 1", "", True)
    assert extract_sql(" \n", thinking=False).well_formed is False


@pytest.mark.parametrize(
    "text",
    [
        "```SELECT 1```",
        "```sql SELECT 1```",
        "```SQL\tSELECT 1\n```",
        "```sqlite\nSELECT 1\n```",
        "```sqlite3\nSELECT 1\n```",
        "```SQLite3\r\nSELECT 1\r\n```",
        "~~~sql\nSELECT 1\n~~~",
        "~~~\nSELECT 1~~~",
        "`````sql\nSELECT 1\n`````",
        "```\nSELECT 1\n`````",
        "```sql\nSELECT 1",
        "```sql\nSELECT 1\n``",
        "\ufeff```sql\nSELECT 1\n```",
        "```sql\n\ufeffSELECT 1\n```",
        "\ufeff SELECT 1",
    ],
)
@pytest.mark.parametrize("thinking", [False, True])
def test_one_fence_and_a_byte_order_mark_cost_nothing(text: str, thinking: bool) -> None:
    found = extract_sql(f"<think>why</think>{text}" if thinking else text, thinking=thinking)
    assert (found.sql, found.well_formed) == ("SELECT 1", True)


def test_back_quotes_of_the_query_stay() -> None:
    assert extract_sql("```sql\nSELECT `a`````", thinking=False).sql == "SELECT `a``"
    assert extract_sql("```sql\nSELECT `a````", thinking=False).sql == "SELECT `a`"
    assert extract_sql("```sql\nSELECT `a`", thinking=False).sql == "SELECT `a`"
    assert extract_sql("```sqlx", thinking=False).sql == "sqlx"


@pytest.mark.parametrize("text", ["```", "``````", "```sql", "```sql\n```", "~~~ \n", "```" + " " * 90_000, "\ufeff"])
def test_a_fence_around_nothing_is_no_answer(text: str) -> None:
    assert extract_sql(text, thinking=False) == Extraction(sql=None, reasoning="", well_formed=False)


@pytest.mark.parametrize(
    "text",
    [
        "```sql\nSELECT 1\n```\n```sql\nSELECT 2\n```",
        "```sql\nSELECT 1\n```\nThat is it.",
        "```sql\nSELECT 1\n```\u200b",
        "```sql\nSELECT 1\n```\n```sql\nSELECT 2",
        "~~~\nSELECT 1\n~~~\n~~~\nSELECT 2\n~~~",
        "SELECT 1\n```",
        "`SELECT 1`",
    ],
)
def test_two_fences_or_text_beside_one_are_no_answer(text: str) -> None:
    assert extract_sql(text, thinking=False).sql == text


def test_a_byte_order_mark_before_the_tag_costs_nothing() -> None:
    found = extract_sql("\ufeff<think>why</think>\ufeffSELECT 1", thinking=True)
    assert (found.sql, found.reasoning, found.well_formed) == ("SELECT 1", "why", True)


def test_a_completion_beyond_the_limit_is_not_read() -> None:
    longest = "SELECT 1".ljust(parse.MAX_COMPLETION_CHARS)
    assert extract_sql(longest, thinking=False).sql == "SELECT 1"
    assert extract_sql(longest + " ", thinking=False) == Extraction(
        sql=None, reasoning="", well_formed=False, too_long=True
    )


def test_prose_around_a_fence_is_not_stripped() -> None:
    text = "Here you are:\n```sql\nSELECT 1\n```"
    assert extract_sql(text, thinking=False).sql == text


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("SELECT  Name\nFROM t -- why\n", "select name from T;"),
        ("SELECT/* x */1", "SELECT 1"),
        ("SELECT a>=1", "select A >= 1 ;"),
        ("SELECT 1; -- done", "SELECT 1"),
        ("SELECT 1 ;/* x */\n-- y", "SELECT 1;"),
        ("\ufeffSELECT 1", "SELECT 1"),
    ],
)
def test_canonical_merges_what_cannot_differ(left: str, right: str) -> None:
    assert canonical(left) == canonical(right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("SELECT 'a'", "SELECT 'A'"),
        ("SELECT 'a  b'", "SELECT 'a b'"),
        ('SELECT "a"', 'SELECT "A"'),
        ("SELECT 'x--y'", "SELECT 'x"),
        ("SELECT a > = 1", "SELECT a >= 1"),
        ("SELECT 1a", "SELECT 1 a"),
        ("SELECT - -1", "SELECT --1\n1"),
        ("SELECT 1;", "SELECT 1;;"),
        ("SELECT 1;", "SELECT 1; SELECT 2"),
        ("SELECT 1;", "SELECT 1; -- done\n;"),
        ("SELECT a\ufeff", "SELECT a"),
        ("SELECT É FROM t", "SELECT é FROM t"),
        ("SELECT 'it''s'", "SELECT 'it' 's'"),
        ("SELECT 1\x00", "SELECT 1"),
        ("SELECT 1\xa0", "SELECT 1"),
        ("SELECT :a", "SELECT :A"),
        ("SELECT 'open", "SELECT 'OPEN"),
    ],
)
def test_canonical_keeps_apart_what_may_differ(left: str, right: str) -> None:
    assert canonical(left) != canonical(right)


_WORDS = "SELECT select a A FROM t NULL 'x' 'X' \"a\" `a` [a] x'ab' 1 1.5 1e3 .5 é"
_MARKS = "+ - -- /* */ * || = < > ! ( ) , ; ? . '"
_PIECES = st.sampled_from([*_WORDS.split(), *_MARKS.split(), " ", "\n", "\t", "\xa0", "\ufeff", ";--x\n", ";/*x*/"])


def _outcome(connection: sqlite3.Connection, sql: str) -> object:
    try:
        return connection.execute(sql).fetchall()
    except (sqlite3.Error, sqlite3.Warning) as error:
        return type(error).__name__


@settings(max_examples=400, deadline=None)
@given(st.lists(_PIECES, max_size=8))
@example(["NULL", "/*", " "])
@example(["NULL", "/*"])
@example(["1", ";--x\n"])
@example(["1", "\ufeff"])
def test_canonical_text_runs_like_the_original(pieces: list[str]) -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE t (a, b)")
    connection.execute("INSERT INTO t VALUES (1, 'x'), (NULL, 'X')")
    sql = "\ufeffSELECT " + "".join(pieces)
    assert _outcome(connection, sql) == _outcome(connection, canonical(sql))
    connection.close()


@pytest.mark.parametrize(
    ("sql", "ordered"),
    [
        ("SELECT a FROM t ORDER BY a", True),
        ("SELECT a FROM t UNION SELECT b FROM t order\n by 1", True),
        ("SELECT a FROM (SELECT a FROM t ORDER BY a)", False),
        ("SELECT rank() OVER (ORDER BY a) FROM t", False),
        ("SELECT 'ORDER BY' FROM t -- ORDER BY a", False),
        ("SELECT `order` FROM t", False),
        ("SELECT 'open ORDER BY a", True),
    ],
)
def test_top_level_order_by(sql: str, ordered: bool) -> None:
    assert has_top_level_order_by(sql) is ordered


@pytest.mark.parametrize("sql", ["SELECT 1; -- done", "SELECT 1;/* x */", "SELECT 1 ; \n--a\n/*b*/", "\ufeffSELECT 1"])
def test_what_runs_as_one_statement_is_read_as_one(sql: str) -> None:
    assert sqlite3.connect(":memory:").execute(sql).fetchall() == [(1,)]
    assert parse_query(sql) == parse_query("SELECT 1")


@pytest.mark.parametrize(
    ("sql", "failure"),
    [
        ("SELECT " + "(" * 5000 + "1" + ")" * 5000, SqlTooComplex),
        ("SELECT " + "1," * 500_000 + "1", SqlTooComplex),
        ("SELECT a FROM t " + "JOIN t " * 300, SqlTooComplex),
        ("SELECT " + "NOT " * 400 + "1", SqlTooComplex),
        ("SELECT " + "INTERVAL " * 400 + "1", SqlTooComplex),
        ("SELECT " + "CASE WHEN " * 300, SqlTooComplex),
        ("SELECT 1; SELECT 2", SqlSyntaxError),
        ("EXPLAIN SELECT 1", SqlSyntaxError),
        ("I think the answer is 42", SqlSyntaxError),
        ("", SqlSyntaxError),
        ("SELECT 'a' 'b'", SqlSyntaxError),
        ("SELECT \x00", SqlSyntaxError),
        ("SELECT FROM WHERE", SqlSyntaxError),
    ],
)
def test_hostile_text_is_refused_quickly(sql: str, failure: type[Exception]) -> None:
    started = time.process_time()
    with pytest.raises(failure):
        parse_query(sql)
    assert time.process_time() - started < 2.0


def test_text_that_is_too_long_is_not_kept() -> None:
    parse.clear_caches()
    with pytest.raises(SqlTooComplex, match=f"at most {parse.MAX_CHARS}"):
        parse_query("SELECT '" + "x" * parse.MAX_CHARS + "'")
    assert parse._parse.cache_info().currsize == 0


def test_deepest_accepted_nesting_leaves_room_on_the_stack() -> None:
    def at_depth(frames: int, sql: str) -> None:
        if frames:
            at_depth(frames - 1, sql)
        else:
            parse._parse.__wrapped__(sql)

    n = parse.MAX_NESTING
    for opening, closing in (("(", ")"), ("f(", ")"), ("CASE WHEN 1 THEN ", " END"), ("EXISTS(SELECT ", ")")):
        depth = n // 2 if opening.count("(") + opening.count("CASE") > 1 else n
        sql = "SELECT " + opening * depth + "1" + closing * depth
        at_depth(250, sql)
        assert not isinstance(parse._parse.__wrapped__(sql), Exception)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60))
def test_nothing_but_parse_failures_escapes(text: str) -> None:
    for sql in (text, f"SELECT {text}", f"SELECT a FROM t WHERE {text}"):
        try:
            parse_query(sql)
        except parse.ParseFailure:
            pass


@needs_data
def test_every_gold_query_parses() -> None:
    golds = [row["query"] for row in json.loads((DATA / "spider/dev.json").read_text())]
    golds += [row["SQL"] for row in json.loads((DATA / "bird/dev.json").read_text())]
    for sql in golds:
        parse_query(sql)
    assert len(golds) == 1034 + 1534
