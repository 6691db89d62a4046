"""report.html in a real browser: it draws, fits, filters, and runs nothing that a model wrote."""

import json
from pathlib import Path

import pytest

from records.report import write_report

pytestmark = pytest.mark.integration

ATTACK = (
    "</pre></script><script>document.documentElement.dataset.pwned='script'</script>"
    "<img src=x onerror=\"document.documentElement.dataset.pwned='img'\">'\"><svg onload=alert(1)>{{7*7}}"
)
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize(("steps", "finished"), [(60, True), (3, False), (0, False)])
def test_the_report_opens_and_fits(
    browser, make_run, tmp_path: Path, width: int, dark: bool, steps: int, finished: bool
) -> None:
    path = write_report(make_run(tmp_path / "run", steps=steps, finished=finished, samples=steps > 0))
    browser.open(path.as_uri(), width=width, dark=dark)
    assert browser.js("innerWidth") == width
    browser.js("document.querySelectorAll('details').forEach((one) => { one.open = true })")
    assert browser.js(OVERFLOW) == 0
    assert browser.js("document.querySelectorAll('.chart path.line, .chart rect.bar').length") > 0
    assert browser.js("document.querySelectorAll('.group[data-group]').length > 0") is (steps > 0)
    assert browser.problems == []


def test_pointing_at_a_chart_reads_its_values(browser, make_run, tmp_path: Path) -> None:
    browser.open(write_report(make_run(tmp_path / "run", steps=40)).as_uri())
    browser.js("window.svg = document.querySelector('.chart svg'); window.box = svg.getBoundingClientRect(); 0")
    value = "document.querySelector('.chart output').textContent"
    assert browser.js(value) == "63.0 %"
    assert not browser.js("svg.querySelector('.cursor').checkVisibility({visibilityProperty: true})")
    browser.js("svg.dispatchEvent(new PointerEvent('pointermove', {clientX: box.left, clientY: box.top})), 0")
    assert browser.js("svg.querySelector('.at').textContent") == "step 0"
    assert browser.js(value) == "41.0 %"
    browser.js("svg.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight'})), 0")
    assert browser.js("svg.querySelector('.at').textContent") == "step 20"
    browser.js("svg.dispatchEvent(new PointerEvent('pointerleave', {pointerType: 'mouse'})), 0")
    assert browser.js(value) == "63.0 %"


def choose(browser, **choices: str) -> None:
    for name, value in choices.items():
        browser.js(
            f"document.forms[0].elements[{name!r}].value = {json.dumps(value)},"
            "document.forms[0].dispatchEvent(new Event('input')), 0"
        )


def test_the_filters_leave_exactly_what_was_asked_for(browser, make_run, tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", steps=60)
    rows = [json.loads(line) for line in (path / "samples.jsonl").read_text().splitlines()]
    all_completions = [one for row in rows for one in row["completions"]]
    browser.open(write_report(path).as_uri())
    count = "document.querySelector('.count').textContent"
    shown = (
        "[...document.querySelectorAll('.completion')].filter((one) => one.checkVisibility ? !one.hidden : 0).length"
    )
    assert browser.js(count) == f"{len(all_completions)} completions in {len(rows)} groups"

    choose(browser, outcome="right")
    right = sum(one["correct"] for one in all_completions)
    assert browser.js(count).startswith(f"{right} completions in ")
    choose(browser, outcome="", error="syntax")
    syntax = sum(one["error_kind"] == "syntax" for one in all_completions)
    assert 0 < syntax < len(all_completions)
    assert browser.js(count).startswith(f"{syntax} completions in ")
    choose(browser, error="", component="full execution")
    assert browser.js(count).startswith(f"{right} completions in ")
    choose(browser, component="", group="mixed")
    mixed = [row for row in rows if 0 < sum(one["correct"] for one in row["completions"]) < len(row["completions"])]
    assert browser.js(count).endswith(f" in {len(mixed)} groups")
    choose(browser, group="", text="integer overflow")
    overflow = sum(one["error"] == "integer overflow" for one in all_completions)
    assert browser.js(count).startswith(f"{overflow} completions in ")
    choose(browser, text="nowhere to be found")
    assert browser.js(count) == "0 completions in 0 groups"
    assert browser.js(shown) == 0


def test_hostile_text_is_shown_and_never_run(browser, make_run, tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", steps=3)
    rows = [json.loads(line) for line in (path / "samples.jsonl").read_text().splitlines()]
    for row in rows:
        row |= dict.fromkeys(("question", "evidence", "prompt", "db_id", "task_id", "difficulty"), ATTACK)
        row["gold_sqls"] = [ATTACK]
        for one in row["completions"]:
            one |= dict.fromkeys(("text", "sql", "error", "error_kind"), ATTACK) | {"flags": [ATTACK, "x" * 3000]}
            one["components"] = {ATTACK: 0.5, "format": 1.0}
    (path / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = write_report(path)
    browser.open(report.as_uri(), width=390)
    browser.js("document.querySelectorAll('details').forEach((one) => { one.open = true })")
    choose(browser, text="onerror")
    assert browser.js("document.querySelector('.group[data-group] .question').textContent") == ATTACK
    assert browser.js("document.querySelector('.completion .sql').textContent") == ATTACK
    assert browser.js("document.documentElement.dataset.pwned ?? 'safe'") == "safe"
    assert browser.js("document.images.length") == 0
    assert browser.js(OVERFLOW) == 0
    assert browser.problems == []


def test_the_security_policy_stops_a_script_that_got_through(browser, make_run, tmp_path: Path) -> None:
    report = write_report(make_run(tmp_path / "run", steps=3))
    text = report.read_text()
    report.write_text(text.replace("</main>", "<script>document.documentElement.dataset.pwned='yes'</script></main>"))
    browser.open(report.as_uri())
    assert browser.js("document.documentElement.dataset.pwned ?? 'safe'") == "safe"
    assert any("Content Security Policy" in problem for problem in browser.problems)
