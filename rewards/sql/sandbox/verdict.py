"""What a statement is, and what an exception that it raised means: the error kinds."""

import re
import sqlite3

DENIED_FUNCTIONS = frozenset(("load_extension", "readfile", "writefile", "edit", "fts3_tokenizer", "lsdir", "fsdir"))
WRITING_KEYWORDS = frozenset(
    "alter analyze attach begin commit create delete detach drop end insert pragma reindex release replace rollback "
    "savepoint update vacuum".split()
)
BROKEN_DATABASE = frozenset(
    (
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_PROTOCOL,
    )
)
# How SQLite's messages begin. What follows may be words of the query, so nothing is looked for there.
SYNTAX_HEADS = ('near "', "incomplete input", "unrecognized token", "the query contains a null character")
SIZE_HEADS = (
    "parser stack overflow",
    "expression tree is too large",
    "too many ",
    "string or blob too big",
    "at most ",
)
MISSING_FUNCTION = "no such function: "
OUT_OF_STEPS = "out of the VM step budget"
PROSE_CHARS = 400
"""Characters behind the word WITH that are looked at."""
_HEAD = re.compile(r"(?:[\s;\ufeff]+|--[^\n]*|/\*.*?(?:\*/|\Z))*+(?P<word>\w*)", re.DOTALL)
OUT_OF_MEMORY = "out of the executor's memory budget"


class TooLarge(Exception):
    """The result passes the row or byte budget."""


def first_keyword(sql: str) -> str:
    """The first word in lower case, after what SQLite skips before a statement: white space, comments, semicolons and
    byte order marks; '' when there is none."""
    return _head(sql)["word"].lower()


def _head(sql: str) -> re.Match[str]:
    found = _HEAD.match(sql)
    assert found is not None, "every part of it may be empty"
    return found


def _with_is_prose(sql: str) -> bool:
    """Whether text that starts with the word WITH lacks the head of a common table expression."""
    end = _head(sql).end()
    words = sql[end : end + PROSE_CHARS].replace("(", " ( ").lower().split()
    if words and words[0] == "recursive":
        words = words[1:]
    return len(words) < 2 or words[1] not in ("(", "as")


def classify(error: Exception, sql: str) -> tuple[str, str | None, str]:
    """(status, error kind, message) of an exception that running a query raised."""
    message = str(error)
    lowered = message.lower()
    if isinstance(error, TooLarge):
        return "error", "too_large", message
    if isinstance(error, MemoryError):
        return "error", "too_large", OUT_OF_MEMORY
    if isinstance(error, UnicodeEncodeError):
        return "error", "syntax", "the query is not valid Unicode text"
    if isinstance(error, UnicodeDecodeError):  # the query itself is Unicode: only names in the database are not
        return "error", "runtime", "the query reads a column whose name is not UTF-8"
    code = (
        error.sqlite_errorcode & 0xFF if isinstance(error, sqlite3.Error) and "sqlite_errorcode" in vars(error) else 0
    )
    if code in BROKEN_DATABASE:
        return "unscorable", None, f"database failure: {message}"
    if code == sqlite3.SQLITE_INTERRUPT:
        return "error", "timeout", OUT_OF_STEPS
    if code == sqlite3.SQLITE_TOOBIG or lowered.startswith(SIZE_HEADS):
        return "error", "too_large", message
    denied = code in (sqlite3.SQLITE_AUTH, sqlite3.SQLITE_READONLY) or lowered.startswith("not authorized")
    absent = lowered.removeprefix(MISSING_FUNCTION) if lowered.startswith(MISSING_FUNCTION) else ""
    if denied or absent in DENIED_FUNCTIONS:
        return "error", "forbidden", message
    if lowered.startswith("you can only execute one statement at a time"):
        return "error", "not_a_query", "more than one statement"
    if lowered.startswith(SYNTAX_HEADS):
        prose = first_keyword(sql) == "with" and _with_is_prose(sql)
        return "error", "not_a_query" if prose else "syntax", message
    return "error", "runtime", message
