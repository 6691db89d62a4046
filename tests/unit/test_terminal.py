"""What reaches a terminal: values as they are, and nothing that acts on it, from every command that shows data."""

import io
import sys
import unicodedata

import pytest
from rich.cells import cell_len
from rich.console import Console

from conf.errors import ConfigError, QuorumError
from conf.terminal import aligned, cell, coloured, table, tell, visible
from operate.ask.__main__ import show
from operate.ask.answer import Answer
from records.sinks.console import PlainConsole, RichConsole
from rewards.carriers import Execution, Value

ATTACK = "[bold]x[/bold] [/nope] :smile: \x1b[31mred\x1b]0;title\x07\x9b2J\u202eevil\u2066\r\u2028"
SPELLED = r"[bold]x[/bold] [/nope] :smile: \x1b[31mred\x1b]0;title\x07\x9b2J\u202eevil\u2066\r\u2028"


def asked(columns: tuple[str, ...], rows: tuple[tuple[Value, ...], ...], *, sql: str = "SELECT 1", width: int = 80):
    console = Console(file=io.StringIO(), width=width, force_terminal=True)
    execution = Execution(status="ok", columns=columns, rows=rows)
    show(Answer(sql=sql, execution=execution, agreeing=1, ran=2, asked=3), console)
    return console.file.getvalue().splitlines()


def test_no_control_format_or_surrogate_character_is_left() -> None:
    acting = [
        chr(code)
        for code in range(sys.maxunicode + 1)
        if unicodedata.category(chr(code)) in ("Cc", "Cf", "Cs", "Zl", "Zp") and chr(code) not in "\u200c\u200d"
    ]
    assert [one for one in acting if visible(one) == one] == []
    assert [one for one in acting if visible(one, lines=True) == one] == ["\t", "\n"]
    assert visible("a\tb\nc") == r"a\tb\nc"
    assert visible("日本語 é 👩\u200d👩 \\x1b") == "日本語 é 👩\u200d👩 \\x1b"


def test_colours_of_another_program_stay_and_nothing_else_does() -> None:
    assert (
        coloured("\x1b[36m(pid)\x1b[0m \x1b[2Jx\r\ny\x1b]8;;u\x07")
        == "\x1b[36m(pid)\x1b[0m \\x1b[2Jx\ny\\x1b]8;;u\\x07"
    )


def test_different_values_look_different() -> None:
    values: list[Value] = [None, "NULL", '"NULL"', "null", "", " ", '""', b"", "x''", b"\x00", "x'00'", "a\nb", "a\\nb"]
    values += ["\x1b", "\\x1b", '"\\x1b"', '"\x1b"', "a ", "a", 0.1, 0.1 + 0.2, 1e300, 2**63 - 1, float("inf"), -0.0, 0]
    shown = [cell(value) for value in values]
    assert len(set(shown)) == len(values)
    assert shown[:3] == ["NULL", '"NULL"', '"\\"NULL\\""']
    assert cell(0.1 + 0.2) == "0.30000000000000004"
    assert cell("葛\U000e0100飾 👩\u200d👩 ❤\ufe0f") == "葛\U000e0100飾 👩\u200d👩 ❤\ufe0f"
    # What shows nothing makes no text look like another value.
    for value in ("NU\u200dLL", "null\ufe0f", "N\u034fULL", "x'\u200c00'", "\u2800", "\u200d", "\U000e01ef\ufe0f"):
        assert cell(value) == f'"{value}"'
    assert [cell(value) for value in ("\u3164", "NULL\u115f", "a\uffa0")] == [
        '"\\u3164"',
        '"NULL\\u115f"',
        '"a\\uffa0"',
    ]
    assert cell("[a] it's C:\\new") == "[a] it's C:\\new"


def test_a_result_is_shown_as_it_is() -> None:
    rows: tuple[tuple[Value, ...], ...] = (("[red]x[/red]", None), ("NULL", 12), ("[/nope]", -1), ("日本", None))
    lines = asked(("[b]a", "a"), rows, sql="SELECT '[red]:smile:\t[/nope]'")
    assert lines == [
        "SELECT '[red]:smile:\t[/nope]'",
        "",
        "[b]a         |    a",
        "-------------------",
        "[red]x[/red] | NULL",
        '"NULL"       |   12',
        "[/nope]      |   -1",
        "日本         | NULL",
        "",
        "1 of 3 candidates agree on this result; 2 ran",
    ]
    assert {cell_len(line) for line in lines[2:8]} == {19}


def test_nothing_of_a_wide_result_is_lost() -> None:
    columns = tuple(f"column {i}" for i in range(40))
    values = tuple(f"value {i}" for i in range(40))
    lines = asked(columns, (values, values))
    assert (lines.count("row 1"), lines.count("row 2")) == (1, 1)
    assert [line.split("  ")[-1].strip() for line in lines if line.startswith("  ")] == [*values, *values]
    assert lines[3] == "  column 0   value 0"
    long = "x" * 5000
    assert f"  a  {long}" in asked(("a",), ((long,),))


def test_empty_and_long_results_say_so() -> None:
    assert asked(("a", "b"), ())[2:5] == ["a | b", "-----", "no rows"]
    assert "... 5 more rows" in asked(("a",), tuple((i,) for i in range(25)))
    assert table(("a", "b"), (), width=1) == ["a", "b"]


def test_what_a_database_says_does_not_act_on_the_terminal() -> None:
    lines = asked((ATTACK,), ((ATTACK,), (None,)), sql=f"SELECT 1 -- {ATTACK}", width=300)
    assert lines[0] == f"SELECT 1 -- {SPELLED}"
    assert lines[2:5] == [f'"{SPELLED}"', "-" * (len(SPELLED) + 2), f'"{SPELLED}"']


@pytest.mark.parametrize("error", [QuorumError(ATTACK), ConfigError(ATTACK)])
def test_errors_are_printed_harmlessly(error: QuorumError, capsys: pytest.CaptureFixture[str]) -> None:
    assert tell(error) == error.exit_code
    assert capsys.readouterr().err.endswith(f": {SPELLED}\n")


def test_notes_of_a_run_are_printed_harmlessly() -> None:
    for kind in (PlainConsole, RichConsole):
        console = Console(file=io.StringIO(), width=200)
        shown = kind(console, steps=1)
        with shown.stage(ATTACK):
            shown.note(ATTACK)
        shown.close()
        text = console.file.getvalue()
        assert SPELLED in text
        assert not set(ATTACK[30:]) & set(text) - set(SPELLED)


def test_columns_are_as_wide_as_they_look() -> None:
    assert aligned([("日本", "1"), ("a\x1b", "10")], right=[1]) == ["日本    1", "a\\x1b  10"]
