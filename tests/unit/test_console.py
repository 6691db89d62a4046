"""The console's lines and its live display, rendered into strings."""

import io
from contextlib import suppress

from rich.console import Console

from records.metrics import Row
from records.sinks.console import Mode, RichConsole, duration, open_console

ROW: Row = {
    "step": 2,
    "version": 2,
    "reward/total/mean": 1.25,
    "reward/accuracy": 0.5,
    "policy/entropy": None,
    "perf/step_s": 30.0,
    "perf/generate_s": 20.0,
    "perf/train_s": 0.0,
    "perf/completions_per_s": 8.53,
}


def render(mode: Mode, *, terminal: bool = False) -> str:
    out = io.StringIO()
    console = open_console(mode, steps=10, console=Console(file=out, force_terminal=terminal, width=120, height=40))
    with console.stage("evaluating"):
        console.write({"step": 0, "version": 0, "eval/greedy_ex": 0.25, "perf/step_s": 99.0})
    console.write(ROW)
    console.note("checkpoint [step-0002] written")
    console.close()
    return out.getvalue()


def test_plain_lines_say_the_numbers_that_matter_and_nothing_else() -> None:
    lines = render("plain").splitlines()
    assert lines[0] == "evaluating ..."
    assert lines[1] == "step 0/10  greedy EX 25.0 %"
    assert lines[2].startswith("evaluating done in ")
    assert lines[3] == (
        "step 2/10  reward 1.250  accuracy 50.0 %  entropy not finite  completions/s 8.5  generate 20.0 s  left 4:00"
    )
    assert lines[4] == "checkpoint [step-0002] written"


def test_auto_is_plain_without_a_terminal_and_live_on_one() -> None:
    assert "\x1b" not in render("auto")
    live = render("auto", terminal=True)
    assert "\x1b[" in live
    assert "2/10" in live
    assert "25.0 %" in live
    assert "checkpoint [step-0002] written" in live


def test_off_is_silent() -> None:
    assert render("off") == ""


def test_durations() -> None:
    assert [duration(s) for s in (8.44, 187, 7509)] == ["8.4 s", "3:07", "2:05:09"]


def test_the_live_display_says_what_the_run_does() -> None:
    console = RichConsole(Console(file=io.StringIO(), force_terminal=True, width=120), steps=10)

    def shown() -> str:
        (task,) = console._progress.tasks
        return task.description

    assert shown() == "starting"
    with console.stage("warm-up"):
        assert shown() == "warm-up"
    assert shown() == "training"
    with suppress(RuntimeError), console.stage("evaluating"):
        assert shown() == "evaluating"
        raise RuntimeError
    assert shown() == "training"
    console.write(ROW)
    assert shown() == "training"
    console.close()
