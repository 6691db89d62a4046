"""Replacements for SQLite built-ins that are random, or that a single call can keep busy for seconds."""

import sqlite3
from collections.abc import Callable
from typing import Any

Value = int | float | str | bytes | None
TRIM_WORK = 100_000_000
"""Comparisons of one trim call."""


def _formatted_size(arguments: tuple[Value, ...]) -> int:
    """Characters that the widths and precisions of a printf call ask for, `*` arguments included."""
    template, values = str(arguments[0]), iter(arguments[1:])
    total = 0
    pieces = iter(template.split("%")[1:])
    for piece in pieces:
        number = ""
        for character in piece:
            if character == "*":
                given = next(values, 0)
                total += abs(int(given)) if isinstance(given, int | float) else _leading_int(str(given))
            elif character.isdigit():
                number += character
            else:
                total += int(number[:12] or 0)
                number = ""
                if character.isalpha() and character != "l":
                    next(values, None)
                    break
        else:
            next(pieces, None)
    return total


def _leading_int(text: str) -> int:
    digits = ""
    for character in text.strip().lstrip("+-"):
        if not character.isdigit():
            break
        digits += character
    return int(digits[:12] or 0)


class Functions:
    """The replacement functions of one process, with the state of the current query."""

    def __init__(self) -> None:
        self._plain = sqlite3.connect(":memory:")
        self.limit = 0
        self._state = 0

    def begin(self, limit: int) -> None:
        """Start a query: the same random numbers every time, values of at most `limit` bytes."""
        self.limit = limit
        self._state = 0x9E3779B97F4A7C15

    def random(self) -> int:
        """Next signed 64-bit number (splitmix64)."""
        mask = 0xFFFFFFFFFFFFFFFF
        self._state = (self._state + 0x9E3779B97F4A7C15) & mask
        mixed = ((self._state ^ (self._state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & mask
        mixed ^= mixed >> 31
        return mixed - (1 << 64) if mixed >> 63 else mixed

    def randomblob(self, size: Value) -> bytes:
        count = max(1, int(size)) if isinstance(size, int | float) else 1
        if count > self.limit:
            raise OverflowError  # sqlite3 turns this into "string or blob too big"
        block = b"".join(self.random().to_bytes(8, "little", signed=True) for _ in range(min(128, count // 8 + 1)))
        return (block * (count // len(block) + 1))[:count]

    def printf(self, *arguments: Value) -> str | None:
        """SQLite's own printf, refused before it starts when it would pad beyond the length limit."""
        if not arguments or arguments[0] is None:
            return None
        if _formatted_size(arguments) > self.limit:
            raise OverflowError
        return self._native("printf", *arguments)

    def instr(self, text: Value, part: Value) -> int | None:
        """SQLite's instr in linear time; its own compares at every position."""
        if type(text) is type(part) and isinstance(text, str | bytes):
            return text.find(part) + 1  # type: ignore[arg-type]
        return self._native("instr", text, part)

    def replace(self, text: Value, old: Value, new: Value) -> str | None:
        """SQLite's replace, refused before it builds a value beyond the length limit."""
        if isinstance(text, str) and isinstance(old, str) and isinstance(new, str):
            if not old:
                return text
            if len(text) + text.count(old) * (len(new) - len(old)) > self.limit:
                raise OverflowError
            return text.replace(old, new)
        return self._native("replace", text, old, new)

    def trim(self, name: str) -> Callable[[Value, Value], str | None]:
        """SQLite's two-argument trims, refused where text and set are both so long that they cost seconds."""

        def trimmed(text: Value, characters: Value) -> str | None:
            if isinstance(text, str | bytes) and isinstance(characters, str | bytes):
                if len(text) * len(characters) > TRIM_WORK:
                    raise OverflowError
            return self._native(name, text, characters)

        return trimmed

    def _native(self, name: str, *arguments: Value) -> Any:
        marks = ",".join("?" * len(arguments))
        return self._plain.execute(f"SELECT {name}({marks})", arguments).fetchone()[0]

    def install(self, connection: sqlite3.Connection) -> None:
        connection.create_function("random", 0, self.random)
        connection.create_function("randomblob", 1, self.randomblob)
        connection.create_function("printf", -1, self.printf, deterministic=True)
        connection.create_function("format", -1, self.printf, deterministic=True)
        connection.create_function("instr", 2, self.instr, deterministic=True)
        connection.create_function("replace", 3, self.replace, deterministic=True)
        for name in ("trim", "ltrim", "rtrim"):
            connection.create_function(name, 2, self.trim(name), deterministic=True)
