"""Text on a terminal: what a database, a model or a file wrote is shown as it is, and cannot act on the terminal.

It lies here because every package prints. Guarantees: no character that is written by `visible`, `cell`, `aligned` and
`table` moves the cursor, changes colours, hides text or turns its direction; `cell` gives different values different
text, except for a number and a text of the same digits. Nothing is cut. Does not guard what is printed without them.
"""

import re
import sys
from collections.abc import Sequence

from conf.errors import ConfigError, QuorumError
from conf.passwords import without_passwords

_NO_LINES = "\n\t"
_HIDDEN = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5\u180e"
    "\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb\ud800-\udfff\U000110bd\U000110cd"
    "\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e007f"
)
"""Control and format characters (C0 and C1 without newline and tab, bidi controls, invisible marks), line and paragraph
separators, fillers that show nothing, lone surrogates."""
_JOINING = re.compile("[\u034f\u180b-\u180d\u180f\u200c\u200d\ufe00-\ufe0f\U000e0100-\U000e01ef]")
"""Joiners and selectors of variants, which are part of words and emoji, and stay; alone they show nothing."""
_BLANK_BRAILLE = "\u2800"
_ACTING = re.compile(f"[{_HIDDEN}]")
_ACTING_OR_LINE = re.compile(f"[{_NO_LINES}{_HIDDEN}]")
_ESCAPED = re.compile(f'[{_NO_LINES}{_HIDDEN}"\\\\]')
_COLOUR = re.compile(r"(\x1b\[[0-9;]*m)")
_BLOB = re.compile(r"[xX]'[0-9a-fA-F]*'")
_NAMED = {"\n": r"\n", "\t": r"\t", "\r": r"\r", '"': r"\"", "\\": r"\\"}

NULL = "NULL"


def visible(text: str, *, lines: bool = False) -> str:
    r"""The text with the characters that would act on a terminal spelled out, as \x1b; `lines` keeps newlines and tabs.

    >>> visible("red \x1b[31mrow")
    'red \\x1b[31mrow'
    """
    return (_ACTING if lines else _ACTING_OR_LINE).sub(_spelled, text)


def coloured(text: str) -> str:
    """What another program printed: lines and colours stay, everything else that acts on a terminal is spelled out."""
    parts = _COLOUR.split(text.replace("\r\n", "\n"))
    return "".join(part if _COLOUR.fullmatch(part) else visible(part, lines=True) for part in parts)


def cell(value: int | float | str | bytes | None) -> str:
    """One value of a result. Text stands as it is where that is plain, else in double quotes with escapes: where it is
    empty, looks like NULL, a blob or quoted text, begins or ends with white space, or holds what cannot be seen. Floats
    keep all their digits, blobs all their bytes.

    >>> [cell(value) for value in (None, "NULL", "[b]", "", b"\\x00", 0.1)]
    ['NULL', '"NULL"', '[b]', '""', "x'00'", '0.1']
    """
    if value is None:
        return NULL
    if isinstance(value, bytes):
        return f"x'{value.hex().upper()}'"
    if not isinstance(value, str):
        return repr(value)
    seen = _JOINING.sub("", value)
    plain = seen and value == value.strip().strip(_BLANK_BRAILLE) and seen.upper() != NULL and not value.startswith('"')
    if plain and not _ACTING_OR_LINE.search(value) and not _BLOB.fullmatch(seen):
        return value
    return f'"{_ESCAPED.sub(_spelled, value)}"'


def _spelled(match: re.Match[str]) -> str:
    character = match.group()
    if character in _NAMED:
        return _NAMED[character]
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def aligned(rows: Sequence[Sequence[str]], *, right: Sequence[int] = (), between: str = "  ") -> list[str]:
    """A line a row, in columns of equal width on the terminal; the columns `right` end where they are aligned."""
    from rich.cells import cell_len  # it takes longer to import than `quorum --help` should

    shown = [[visible(text) for text in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(*shown, strict=True)]

    def padded(text: str, column: int) -> str:
        space = " " * (widths[column] - cell_len(text))
        return space + text if column in right else text + space

    return [between.join(padded(text, column) for column, text in enumerate(row)).rstrip() for row in shown]


def table(
    columns: Sequence[str], rows: Sequence[Sequence[int | float | str | bytes | None]], *, width: int
) -> list[str]:
    """The lines of a result: a table where it fits into `width` characters, else a line a value, record by record."""
    from rich.cells import cell_len

    headings = [cell(column) for column in columns]
    cells = [[cell(value) for value in row] for row in rows]
    numbers = [
        column
        for column in range(len(headings))
        if rows and all(row[column] is None or isinstance(row[column], int | float) for row in rows)
    ]
    head, *body = aligned([headings, *cells], right=numbers, between=" | ")
    if max(map(cell_len, (head, *body))) <= width:
        return [head, "-" * max(map(cell_len, (head, *body))), *body]
    lines = []
    for number, row in enumerate(cells, start=1):
        lines += [f"row {number}", *(f"  {line}" for line in aligned(list(zip(headings, row, strict=True))))]
    return lines or headings


def tell(error: QuorumError) -> int:
    """Writes the error's sentence to stderr; the exit code. The one place where errors are printed."""
    kind = "configuration" if isinstance(error, ConfigError) else "error"
    sys.stderr.write(f"{kind}: {visible(without_passwords(str(error)), lines=True)}\n")
    return error.exit_code
