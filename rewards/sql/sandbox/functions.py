"""Replacements for SQLite built-ins that are random, or that a single call can keep busy for seconds.

Each call is charged to the step budget of its query for what it costs beside the VM instruction that makes it, so that
a query full of calls ends at the same place on every machine.
"""

import re
import sqlite3
from collections.abc import Callable
from random import Random
from typing import Any

Value = int | float | str | bytes | None
SEED = 20_260_101
CALL_STEPS = 10
"""VM instructions that take as long as a call into Python."""
NATIVE_STEPS = 100
"""As long as a call that asks SQLite in turn."""
BYTES_PER_STEP = 64
"""Text or blob that is read or written in the time of one VM instruction."""
TRIM_WORK = 100_000_000
"""Comparisons of one trim call."""


_CONVERSION = re.compile(r"%[-+ #0,!]*(\*|[0-9]+)?(?:\.(\*|[0-9]+)?)?[lh]*(.)?", re.DOTALL)
"""A conversion of SQLite's printf: flags, width, precision, letter (https://sqlite.org/printf.html)."""


def _formatted_size(arguments: tuple[Value, ...]) -> int:
    """Characters that the widths and precisions of a printf call ask for, `*` arguments included."""
    values = iter(arguments[1:])
    total = 0
    for width, precision, letter in _CONVERSION.findall(str(arguments[0])):
        for number in (width, precision):
            if number == "*":
                given = next(values, 0)
                total += abs(int(given)) if isinstance(given, int | float) else _leading_int(str(given))
            elif number:
                total += int(number[:12])
        if letter != "%":
            next(values, None)
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
        self.steps = 0
        """Charged to the current query so far, in VM instructions."""
        self._generator: Random | None = None

    def begin(self, limit: int) -> None:
        """Start a query: the same random numbers every time, values of at most `limit` bytes."""
        self.limit = limit
        self.steps = 0
        self._generator = None

    def random(self) -> int:
        """The query's next signed 64-bit number; seeding takes longer than most queries, so it waits for the first."""
        self.steps += CALL_STEPS
        if self._generator is None:
            self._generator = Random(SEED)
        return self._generator.getrandbits(64) - (1 << 63)

    def randomblob(self, size: Value) -> bytes:
        if isinstance(size, str | bytes):
            size = self._plain.execute("SELECT CAST(? AS INTEGER)", (size,)).fetchone()[0]
        count = max(1, int(size)) if isinstance(size, int | float) else 1
        if count > self.limit:
            raise OverflowError  # sqlite3 turns this into "string or blob too big"
        self.steps += count // BYTES_PER_STEP
        block = b"".join(self.random().to_bytes(8, "little", signed=True) for _ in range(min(128, count // 8 + 1)))
        return (block * (count // len(block) + 1))[:count]

    def printf(self, *arguments: Value) -> str | None:
        """SQLite's own printf, refused before it starts when it would pad beyond the length limit."""
        if not arguments or arguments[0] is None:
            return None
        size = _formatted_size(arguments)
        if size > self.limit:
            raise OverflowError
        self.steps += size // BYTES_PER_STEP
        return self.native("printf", *arguments)

    def instr(self, text: Value, part: Value) -> int | None:
        """SQLite's instr in linear time; its own compares at every position."""
        if type(text) is type(part) and isinstance(text, str | bytes):
            self.steps += CALL_STEPS + len(text) // BYTES_PER_STEP
            return text.find(part) + 1  # type: ignore[arg-type]
        return self.native("instr", text, part)

    def replace(self, text: Value, old: Value, new: Value) -> str | None:
        """SQLite's replace, refused before it builds a value beyond the length limit."""
        if isinstance(text, str) and isinstance(old, str) and isinstance(new, str):
            self.steps += CALL_STEPS + len(text) // BYTES_PER_STEP
            if not old:
                return text
            if len(text) + text.count(old) * (len(new) - len(old)) > self.limit:
                raise OverflowError
            return text.replace(old, new)
        return self.native("replace", text, old, new)

    def trim(self, name: str) -> Callable[[Value, Value], str | None]:
        """SQLite's two-argument trims, refused where text and set are both so long that they cost seconds."""

        def trimmed(text: Value, characters: Value) -> str | None:
            if isinstance(text, str | bytes) and isinstance(characters, str | bytes):
                work = len(text) * len(characters)
                if work > TRIM_WORK:
                    raise OverflowError
                self.steps += work // BYTES_PER_STEP
            return self.native(name, text, characters)

        return trimmed

    def case(self, name: str) -> Callable[[Value], Value]:
        """SQLite's upper and lower, which change ASCII letters alone."""
        change = str.upper if name == "upper" else str.lower

        def changed(text: Value) -> Value:
            if type(text) is str and text.isascii():
                self.steps += CALL_STEPS + len(text) // BYTES_PER_STEP
                return change(text)
            return self._long(name, text)

        return changed

    def hexadecimal(self, value: Value) -> Value:
        """SQLite's hex."""
        if not isinstance(value, str | bytes):
            return self._long("hex", value)
        self.steps += CALL_STEPS + len(value) // BYTES_PER_STEP
        if 2 * len(value) > self.limit:
            raise OverflowError
        return (value.encode() if isinstance(value, str) else value).hex().upper()

    def quote(self, value: Value) -> Value:
        """SQLite's quote."""
        return self._long("quote", value)

    def zeroblob(self, size: Value) -> Value:
        """SQLite's zeroblob, refused before it makes a value beyond the length limit."""
        if isinstance(size, int | float):
            if size > self.limit:
                raise OverflowError
            self.steps += max(0, int(size)) // BYTES_PER_STEP
        return self._long("zeroblob", size)

    def _long(self, name: str, value: Value) -> Value:
        """SQLite's own function of one value, charged for that value's length."""
        if isinstance(value, str | bytes):
            self.steps += len(value) // BYTES_PER_STEP
        result: Value = self.native(name, value)
        return result

    def native(self, name: str, *arguments: Value) -> Any:
        """SQLite's own function."""
        self.steps += NATIVE_STEPS
        marks = ",".join("?" * len(arguments))
        return self._plain.execute(f"SELECT {name}({marks})", arguments).fetchone()[0]

    def install(self, connection: sqlite3.Connection, *, native: bool) -> None:
        """With `native` only what is random is replaced: Python cannot be given text that is not UTF-8."""
        connection.create_function("random", 0, self.random)
        connection.create_function("randomblob", 1, self.randomblob)
        if native:
            return
        connection.create_function("printf", -1, self.printf, deterministic=True)
        connection.create_function("format", -1, self.printf, deterministic=True)
        connection.create_function("instr", 2, self.instr, deterministic=True)
        connection.create_function("replace", 3, self.replace, deterministic=True)
        connection.create_function("hex", 1, self.hexadecimal, deterministic=True)
        connection.create_function("quote", 1, self.quote, deterministic=True)
        connection.create_function("zeroblob", 1, self.zeroblob, deterministic=True)
        for name in ("upper", "lower"):
            connection.create_function(name, 1, self.case(name), deterministic=True)
        for name in ("trim", "ltrim", "rtrim"):
            connection.create_function(name, 2, self.trim(name), deterministic=True)
