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
SYNTAX_MARKS = ("syntax error", "incomplete input", "unrecognized token", "null character")
SIZE_MARKS = ("parser stack overflow", "expression tree is too large", "too many", "string or blob too big", "at most")
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
    code = (
        error.sqlite_errorcode & 0xFF if isinstance(error, sqlite3.Error) and "sqlite_errorcode" in vars(error) else 0
    )
    if code in BROKEN_DATABASE:
        return "unscorable", None, f"database failure: {message}"
    if code == sqlite3.SQLITE_INTERRUPT:
        return "error", "timeout", "out of the VM step budget"
    if code == sqlite3.SQLITE_TOOBIG or any(mark in lowered for mark in SIZE_MARKS):
        return "error", "too_large", message
    denied = code in (sqlite3.SQLITE_AUTH, sqlite3.SQLITE_READONLY) or lowered.startswith("not authorized")
    if denied or lowered.removeprefix("no such function: ") in DENIED_FUNCTIONS:
        return "error", "forbidden", message
    if "one statement at a time" in lowered:
        return "error", "not_a_query", "more than one statement"
    if any(mark in lowered for mark in SYNTAX_MARKS):
        prose = first_keyword(sql) == "with" and _with_is_prose(sql)
        return "error", "not_a_query" if prose else "syntax", message
    return "error", "runtime", message
