"""sqlglot's SQLite parser, made faithful and bounded.

sqlglot parses in order to translate: it knows functions of many dialects and maps several spellings to one node (STRING
and TEXT, LEN and LENGTH). For comparing queries the tree must keep what SQLite would tell apart, so function calls keep
their own names (`Anonymous`) and CAST keeps its type's words. Reading again is limited, because a chain of JOINs
without ON costs the original parser exponential time.
"""

from collections.abc import Callable
from typing import ClassVar

from sqlglot import exp
from sqlglot.dialects.sqlite import SQLite
from sqlglot.parsers.sqlite import SQLiteParser
from sqlglot.tokenizer_core import TokenType

from conf.errors import QuorumError

REREAD_BASE = 200
REREAD_PER_TOKEN = 5
"""Tokens that the parser may step back over, in total and for each token of the text; real queries need 0.6 each."""


class TooManyReadings(Exception):
    """The text can be read in too many ways to try them all."""


class FaithfulParser(SQLiteParser):
    """Parses one text; make a new one for each."""

    JOINS_HAVE_EQUAL_PRECEDENCE: ClassVar[bool] = False
    """They have in SQLite. But sqlglot would then keep a comma as CROSS JOIN, which forbids SQLite to choose the order
    of the tables: written back, such a query can take a thousand times as long."""
    FUNCTIONS: ClassVar[dict[str, Callable]] = {}
    FUNCTION_PARSERS: ClassVar[dict[str, Callable]] = {"CAST": lambda self: self._parse_sqlite_cast()}
    NO_PAREN_FUNCTION_PARSERS: ClassVar[dict[str, Callable]] = {"CASE": lambda self: self._parse_case()}
    NO_PAREN_FUNCTIONS: ClassVar[dict] = {
        TokenType.CURRENT_DATE: exp.CurrentDate,
        TokenType.CURRENT_TIME: exp.CurrentTime,
        TokenType.CURRENT_TIMESTAMP: exp.CurrentTimestamp,
    }

    reread_left: int = 0

    def _retreat(self, index: int) -> None:
        self.reread_left -= abs(int(self._index) - index)
        if self.reread_left < 0:
            raise TooManyReadings
        super()._retreat(index)

    def _parse_sqlite_cast(self) -> exp.Expr:
        this = self._parse_disjunction()
        if not self._match(TokenType.ALIAS):
            self.raise_error("Expected AS in CAST")
        words = []
        depth = 0
        while self._curr and (depth or self._curr.token_type != TokenType.R_PAREN):
            depth += (self._curr.token_type == TokenType.L_PAREN) - (self._curr.token_type == TokenType.R_PAREN)
            words.append(self._curr.text)
            self._advance()
        kind = " ".join(words).upper()
        return self.expression(exp.Cast(this=this, to=exp.DataType(this=exp.DType.USERDEFINED, kind=kind)))


class SqlglotCompiled(QuorumError):
    """sqlglot is installed in its compiled variant."""


def new_parser() -> FaithfulParser:
    """A parser for one text. Raises SqlglotCompiled."""
    try:
        return FaithfulParser(dialect=SQLite())
    except TypeError as error:  # what a compiled base class says to an interpreted subclass
        raise SqlglotCompiled(
            "the package sqlglotc makes sqlglot's parser impossible to extend: uninstall it"
        ) from error


def parse_statements(parser: FaithfulParser, sql: str) -> list[exp.Expr]:
    """The statements of a text; comments behind the last semicolon are none. Raises TooManyReadings and whatever
    sqlglot raises."""
    tokens = parser.dialect.tokenize(sql)
    parser.reread_left = REREAD_BASE + REREAD_PER_TOKEN * len(tokens)
    return [tree for tree in parser.parse(tokens, sql) if tree is not None and not isinstance(tree, exp.Semicolon)]
