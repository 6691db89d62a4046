"""Whatever reads a model's text takes linear time: hostile texts against a bound that no quadratic loop meets."""

import sqlite3
import time
from collections.abc import Callable

import pytest

from benchmarks.metrics.spider.exact import exact_match
from benchmarks.metrics.spider.parser import parse as parse_spider
from benchmarks.metrics.spider.text import executable, without_distinct
from benchmarks.metrics.spider.tree import Refused
from benchmarks.official import one_line
from benchmarks.scoring.blank import as_official
from rewards.carriers import Execution
from rewards.components.atomic import token_similarity
from rewards.components.memory import bigram_ratio, column_mentions, column_phrases
from rewards.components.repetition import repeated_share
from rewards.embedders.hashing import HashingEmbedder
from rewards.sql.marks import unfenced
from rewards.sql.parse import ParseFailure, canonical, extract_sql, has_top_level_order_by, lex, parse_query
from rewards.sql.sandbox.verdict import classify, first_keyword
from selection.features import _reading

CHARS = 50_000
BOUND_S = 2.0
"""CPU seconds for CHARS characters on a slow and busy machine, where the slowest of these takes 0.3. A loop over all
pairs of characters takes 6 or more."""
REPEATED = [
    *("[", "]", "'", '"', "`", "''", "['", '["', "`[", "\\'", "(", ")", ";", ".)", "a.)", "#", "?", "-", "\ufeff"),
    *("```", "```\n", "``` ", "~~~", " ", "\n", "<think>", "</think>", "/*", "/**/", "--", "--\n", "x'", "x'a", "1."),
    *("a ", "a_", "name ", "x <", "SELECT ", "from ", "YEAR ( CURDATE ( ", "strftime('", "date( ", "with ", "İ"),
]
COLUMNS = column_phrases([f"name {number}" for number in range(300)])
TABLES = {"t": ["a", "b"], "u": ["c"]}
FAILED = Execution(status="error", error_kind="syntax")
SYNTAX = sqlite3.OperationalError('near "x": syntax error')


def _parsed(sql: str) -> None:
    try:
        parse_query(sql)
    except ParseFailure:
        pass


def _exact(sql: str) -> None:
    try:
        tree = parse_spider(sql, TABLES)
    except Refused:
        return
    exact_match(parse_spider("select a from t", TABLES), tree, {})


READERS: dict[str, Callable[[str], object]] = {
    "extraction": lambda text: extract_sql(text, thinking=True),
    "extraction behind a fence": lambda text: unfenced(f"```{text}x"),
    "extraction in a fence": lambda text: unfenced(f"~~~sql\n{text}\n~~~"),
    "tokens": lex,
    "canonical text": canonical,
    "sorting": lambda text: has_top_level_order_by(f"SELECT {text}"),
    "syntax tree": _parsed,
    "similarity": lambda text: token_similarity("SELECT 1", text),
    "first keyword": first_keyword,
    "error kind": lambda text: classify(SYNTAX, f"with {text}"),
    "repetition": repeated_share,
    "named columns": lambda text: column_mentions(text, COLUMNS),
    "word pairs": lambda text: bigram_ratio(text.split()),
    "embedding": lambda text: HashingEmbedder(64).embed([text]),
    "reranker": lambda text: _reading(f"SELECT {text}", frozenset({"name"}), "the name"),
    "Spider's text": lambda text: executable(text, keep_distinct=False),
    "without DISTINCT": lambda text: without_distinct(f"DISTINCT {text}"),
    "one line": lambda text: one_line(f"\n{text}"),
    "blank text": lambda text: as_official(text, FAILED),
    "Spider's parser": _exact,
    "Spider's parser in WHERE": lambda text: _exact(f"select a from t where {text}"),
}


@pytest.mark.parametrize("reader", READERS)
def test_hostile_text_takes_linear_time(reader: str) -> None:
    for piece in REPEATED:
        text = (piece * CHARS)[:CHARS]
        started = time.process_time()
        READERS[reader](text)
        assert time.process_time() - started < BOUND_S, repr(piece)


@pytest.mark.parametrize(
    "sql",
    [
        "select " + "c , " * 20_000 + "c from t " + "join t " * 20_000 + "join u",
        "select a from t " + "join t on a = b " * 10_000,
        "select a from t where " + "a in ( select a from t ) and " * 4_000 + "a = 1",
        "select a from t " + "join t as x " * 10_000,
    ],
)
def test_long_predictions_meet_spiders_parser_in_linear_time(sql: str) -> None:
    started = time.process_time()
    parse_spider(sql, TABLES)
    assert time.process_time() - started < BOUND_S


def test_columns_that_begin_alike_are_told_apart() -> None:
    phrases = column_phrases(["name", "name of owner", "name of dog"])
    assert column_mentions("name of dog, name of cat, the NAME OF OWNER", phrases) == 3
