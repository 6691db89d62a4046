"""From a completion to one SQL text, and from SQL text to a syntax tree, at bounded cost.

Guarantees: extraction never fails; every function takes time linear in its text (long or deep SQL never reaches
sqlglot); `canonical` never gives one text to two queries that SQLite could tell apart; `parse_query` raises nothing but
ParseFailure. Does not decide what may be executed: that is the executor's business.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from sqlglot.errors import SqlglotError
from sqlglot.expressions import Expr

from rewards.sql.grammar import TooManyReadings, new_parser, parse_statements
from rewards.sql.marks import END_THINK, LEADING_SPACE, THINK, unfenced

MAX_COMPLETION_CHARS = 200_000
"""Longest completion that is read at all: about 50,000 tokens of English. Keeps whatever looks at its text short."""
MAX_CHARS = 20_000
MAX_TOKENS = 2_000
MAX_NESTING = 20
"""Open brackets, CASEs and prefix operators around one token. sqlglot recurses by up to 25 frames for each, and
Python's recursion limit must stay out of reach: whether it is hit depends on the caller's stack."""
MAX_CANONICAL_CHARS = 10_000
KEPT_TREES = 64
"""Trees kept for callers that ask again soon; one of MAX_TOKENS takes megabytes."""


class ParseFailure(Exception):
    """The text has no syntax tree here. Says nothing about whether SQLite accepts it."""


class SqlSyntaxError(ParseFailure):
    """sqlglot cannot read the text, or it is not exactly one statement."""


class SqlTooComplex(ParseFailure):
    """The text is longer or deeper than what is parsed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Extraction:
    """What a completion says."""

    sql: str | None
    """The answer without fence and surrounding white space; None when there is none."""
    reasoning: str
    """Text between the think tags, stripped; '' when there is none."""
    well_formed: bool
    """The tags are as asked for and there is an answer."""
    too_long: bool = False
    """The completion has more than MAX_COMPLETION_CHARS characters and was not read."""
    fault: str | None = None
    """Why it is not well-formed; with thinking off, that it holds a think tag, which is then taken for SQL."""


class Token(NamedTuple):
    kind: str
    """string, quoted (an identifier, or SQLite's double-quoted text), number, blob, word, param or op."""
    text: str


_LEXER = re.compile(
    r"""(?P<space>[ \t\n\f\r]+|--[^\n]*|/\*(?!\Z).*?(?:\*/|\Z))
    |(?P<string>'[^']*(?:''[^']*)*')
    |(?P<quoted>"[^"]*(?:""[^"]*)*"|`[^`]*(?:``[^`]*)*`|\[[^\]]*\])
    |(?P<open>\[[^\]]*\Z)
    |(?P<blob>[xX]'[0-9a-fA-F]*')
    |(?P<number>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?[\w$]*)
    |(?P<word>[^\W\d][\w$]*)
    |(?P<param>\?[0-9]*|[:@$\#][\w$]+)
    |(?P<op>\|\||->>|->|<<|>>|<=|>=|<>|==|!=|[-+*/%(),.;<>=&|~])""",
    re.VERBOSE | re.DOTALL,
)
"""`open`: a bracket that is never closed, which takes the rest of the text so that the next one need not look for its
end again. An open quote can only be the last of its kind."""
_ASCII_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}
_PREFIX_WORDS = frozenset({"not", "exists", "distinct"})
_QUERY_STARTS = frozenset({"select", "with", "values", "("})
_PREFIX_OPS = frozenset("-+~")


def extract_sql(completion: str, *, thinking: bool) -> Extraction:
    """Splits a completion into reasoning and answer.

    With `thinking` a well-formed completion has exactly one <think> and one </think>, in this order, with only white
    space before the first, and an answer behind the second. A malformed one still yields what follows its last </think>
    (all of it when it has no tag), so that it can be executed and reported; what an open <think> holds is no answer.
    What the prompt has opened stands before the completion (Group.answers in rollout/carriers.py).
    """
    if len(completion) > MAX_COMPLETION_CHARS:
        return Extraction(sql=None, reasoning="", well_formed=False, too_long=True)
    if not thinking:
        sql = unfenced(completion)
        tagged = THINK in completion or END_THINK in completion
        fault = "it holds a think tag, which is taken for SQL" if tagged else None
        return Extraction(sql=sql, reasoning="", well_formed=sql is not None, fault=fault)
    opens, closes = completion.count(THINK), completion.count(END_THINK)
    head, _, answer = completion.lstrip(LEADING_SPACE).rpartition(END_THINK)
    sql = None if THINK in answer else unfenced(answer)
    before, _, reasoning = head.partition(THINK)
    well_formed = opens == 1 and closes == 1 and not before.strip() and THINK in head and sql is not None
    return Extraction(
        sql=sql,
        reasoning=reasoning.strip() if THINK in head else before.strip(),
        well_formed=well_formed,
        fault=None if well_formed else _tag_fault(opens, closes, text_before=bool(before.strip())),
    )


def _tag_fault(opens: int, closes: int, *, text_before: bool) -> str:
    if not opens and not closes:
        return "it has no <think> block"
    if not opens:
        return "it has </think> without <think>"
    if not closes:
        return "its <think> is never closed"
    if opens > 1 or closes > 1:
        return "it has more than one <think> or </think>"
    return "text stands before its <think>" if text_before else "no SQL follows its </think>"


def lex(sql: str) -> list[Token] | None:
    """SQLite's tokens without spaces and comments, or None where the text holds something that is no token.

    Linear in the text. Adjacent characters that SQLite reads as one illegal token (`1abc`) stay one token.
    """
    tokens: list[Token] = []
    end = len(sql) - len(sql.lstrip(LEADING_SPACE))
    for match in _LEXER.finditer(sql, end):
        if match.start() != end or match.lastgroup == "open":
            return None
        end = match.end()
        kind = match.lastgroup or ""
        if kind != "space":
            tokens.append(Token(kind, match[0]))
    return tokens if end == len(sql) else None


def canonical(sql: str) -> str:
    """A key for de-duplication: white space, comments and the letter case of bare ASCII words do not count.

    Everything else does, so equal keys mean that SQLite runs the same program. Text that is long, holds characters that
    are no SQLite token, or has a token behind its semicolon is its own key. A limit on the length of a
    query is to be applied before: white space counts for it, and not here.
    """
    # White space at the end counts: a "/*" with something behind it is a comment, a bare one is two operators.
    text = sql.lstrip(LEADING_SPACE)
    if len(text) > MAX_CANONICAL_CHARS:
        return text
    tokens = lex(text)
    if not tokens:
        return text
    if tokens[-1].text == ";":
        tokens.pop()
    if any(token.text == ";" for token in tokens):
        return text
    return " ".join(t.text.translate(_ASCII_LOWER) if t.kind in ("word", "number") else t.text for t in tokens)


def has_top_level_order_by(sql: str) -> bool:
    """Whether ORDER BY stands outside all brackets, where it orders the result itself."""
    if "order" not in sql.lower():  # most queries, and reading tokens takes a hundred times as long
        return False
    depth, previous = 0, ""
    for match in _LEXER.finditer(sql):
        kind = match.lastgroup
        if kind == "space":
            continue
        text = match[0].lower() if kind in ("word", "op") else ""
        if text == "(":
            depth += 1
        elif text == ")":
            depth -= 1
        elif depth == 0 and text == "by" and previous == "order":
            return True
        previous = text
    return False


def parse_query(sql: str) -> Expr:
    """The syntax tree of one statement; grammar.py says where it differs from sqlglot's own.

    It is shared with other callers: never change it.

    Raises SqlTooComplex before parsing where the text is over the limits, SqlSyntaxError where sqlglot cannot read it.
    """
    # Before the cache, which would keep the text.
    if len(sql) > MAX_CHARS:
        raise SqlTooComplex(f"{len(sql)} characters, at most {MAX_CHARS} are parsed")
    outcome = _parse(sql)
    if isinstance(outcome, ParseFailure):
        raise outcome.with_traceback(None)
    return outcome


def clear_caches() -> None:
    """Forgets the trees parsed so far, for measurements."""
    _parse.cache_clear()


def nesting(tokens: list[Token]) -> int:
    """Deepest stack of open brackets and CASEs, prefix operators and repeated words in a row added."""
    depth = deepest = prefixes = 0
    previous = ""
    for kind, text in tokens:
        word = text.lower() if kind == "word" else text
        if word in ("(", "case"):
            depth += 1
        elif word in (")", "end"):
            depth -= 1
        prefixes = prefixes + 1 if word in _PREFIX_WORDS or word in _PREFIX_OPS or word == previous else 0
        deepest = max(deepest, depth + max(0, prefixes - 1))
        previous = word if kind == "word" else ""
    return deepest


@lru_cache(maxsize=KEPT_TREES)
def _parse(sql: str) -> Expr | ParseFailure:
    tokens = lex(sql)
    if tokens is None:
        return SqlSyntaxError("the text holds characters that are no SQLite token")
    if len(tokens) > MAX_TOKENS:
        return SqlTooComplex(f"{len(tokens)} tokens, at most {MAX_TOKENS} are parsed")
    if any(a.kind == b.kind == "string" for a, b in pairwise(tokens)):
        return SqlSyntaxError("adjacent strings: SQLite reads the second as an alias, sqlglot as a continuation")
    if nesting(tokens) > MAX_NESTING:
        return SqlTooComplex(f"nested deeper than {MAX_NESTING} levels")
    if not any(token.text.lower() in _QUERY_STARTS for token in tokens[:1]):
        return SqlSyntaxError("the text does not begin like a query")
    parser = new_parser()
    try:
        trees = parse_statements(parser, sql.lstrip(LEADING_SPACE))
    except TooManyReadings:
        return SqlTooComplex("too many ways to read the text")
    # The parser indexes and dereferences what it expects to be there, so odd text also ends in these.
    except (SqlglotError, RecursionError, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        return SqlSyntaxError(f"not readable: {str(error)[:200]}")
    if len(trees) != 1:
        return SqlSyntaxError(f"{len(trees)} statements instead of one")
    return trees[0]
