"""The marks that models put around reasoning and answer: think tags, and a code fence, taken off in linear time.

Tolerated are fences of three or more back quotes or tildes, on lines of their own or on the answer's line, with or
without the language `sql`, `sqlite` or `sqlite3`, and one that is never closed: the completion was cut. Text before or
behind a fence, or a second fence, is no answer: the text is then left as it is, and does not run.
"""

THINK, END_THINK = "<think>", "</think>"
SQLITE_SPACE = " \t\n\f\r"
BYTE_ORDER_MARK = "\ufeff"
LEADING_SPACE = SQLITE_SPACE + BYTE_ORDER_MARK
"""What SQLite skips before a statement; a mark behind a word would be part of it."""
SHORTEST_FENCE = 3
LANGUAGES = ("sqlite3", "sqlite", "sql")
"""Longest first."""


def unfenced(text: str) -> str | None:
    """The text without its fence and the white space around; None when nothing is left.

    >>> unfenced("```sql\\nSELECT 1\\n```")
    'SELECT 1'
    """
    text = text.lstrip(LEADING_SPACE).rstrip(SQLITE_SPACE)
    mark = text[:1]
    width = _run(text, mark) if mark in ("`", "~") else 0
    if width >= SHORTEST_FENCE:
        body = _without_end(_without_language(text[width:]), mark, width)
        if mark * width not in body:
            text = body.lstrip(LEADING_SPACE).rstrip(SQLITE_SPACE)
    return text or None


def _run(text: str, mark: str) -> int:
    """How many of the mark the text begins with."""
    return len(text) - len(text.lstrip(mark))


def _without_language(body: str) -> str:
    """What follows the language behind an opening fence; a word that only begins like one belongs to the answer."""
    body = body.lstrip(" \t")
    for language in LANGUAGES:
        rest = body[len(language) :]
        if body[: len(language)].lower() == language and not (rest[:1].isalnum() or rest[:1] == "_"):
            return rest
    return body


def _without_end(body: str, mark: str, width: int) -> str:
    """What stands before the closing fence; all of it when the fence is not closed."""
    before = body.rstrip(mark)
    closing = len(body) - len(before)
    line = before.rstrip(" \t")
    if closing and (not line or line[-1] in "\r\n"):
        return line  # on a line of its own, perhaps cut before its last mark
    return body[: len(body) - width] if closing >= width else body
