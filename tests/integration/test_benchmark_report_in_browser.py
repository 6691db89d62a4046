"""A benchmark report in a real browser: it fits, filters, shows both results, and runs nothing of its contents."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.carriers import Answer, Answers, Judged
from benchmarks.comparison import compare, read_run
from benchmarks.report.compare_page import write_comparison
from benchmarks.report.page import write_report
from benchmarks.scores import summarise
from benchmarks.scoring.exhibit import table
from benchmarks.study.__main__ import _page as study_page
from rewards.carriers import Execution

pytestmark = pytest.mark.integration

LOADED = "document.readyState === 'complete' && location.protocol === 'file:'"
METRICS = ("exec", "exact")
LEVELS = ("easy", "hard")
PWN = "document.documentElement.dataset.pwned=1"
ATTACK = f'<!--<script></script><script>{PWN}</script><img src=x onerror="{PWN}">\'"'
PWNED = "document.documentElement.dataset.pwned"
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
COUNT = "document.getElementById('count').textContent"
WIDE = Execution(
    status="ok",
    columns=tuple(f"column_{i}" for i in range(30)),
    rows=tuple(tuple(f"a long value {i} {j}" for j in range(30)) for i in range(40)),
)
FAILED = Execution(status="error", error_kind="runtime", error=f"no such column: {ATTACK}")


def judged(index: int) -> Judged:
    """Every third answer right; databases and levels alternate; the others show a wide result and a failure."""
    right = index % 3 == 0
    level, database = LEVELS[index % 2], f"database_{index % 4}"
    sql = f"SELECT {'very_long_name_' * 20}{index} {ATTACK}"
    exhibit = {
        "question": f"Question {index} {ATTACK}",
        "gold": f"SELECT {index}",
        "instance": index % 2,
        "gold_result": table(WIDE),
        "result": table(FAILED if index % 2 else WIDE),
    }
    return Judged(
        verdict={"index": index, "db_id": database, "exec": int(right), "exact": 0, "sql": sql},
        level=level,
        rights=(right, False, True),
        greedy_right=right,
        voters={"value_aware": right, "majority": True},
        error_kinds=("runtime",),
        exhibit={} if right else exhibit,
    )


@pytest.fixture
def page(tmp_path: Path) -> str:
    examples = [judged(i) for i in range(90)]
    answers = Answers(source=f"a file {ATTACK}", answers=tuple(Answer(candidates=("x", "y", "z")) for _ in examples))
    summary = summarise(examples, answers, METRICS, LEVELS)
    summary |= {"data": "Spider dev", "source": answers.source, "selection": "value_aware", "limit": None}
    summary["seconds"] = {"score": 1.0, "generate": 2.0}
    write_report(tmp_path / "report.html", summary, examples, METRICS)
    return (tmp_path / "report.html").as_uri()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_and_shows_both_results(browser, page: str, width: int, dark: bool) -> None:
    browser.open(page, width=width, dark=dark)
    browser.js("document.querySelectorAll('details').forEach((one) => { one.open = true })")
    assert browser.js(OVERFLOW) == 0
    assert browser.js("document.querySelectorAll('article').length") == 20
    sides = "[...document.querySelector('article .sides').children].map((one) => one.getBoundingClientRect().top)"
    first, second = browser.js(sides)
    assert (first == second) is (width == 1280)
    assert browser.js("document.querySelectorAll('article .sides')[0].textContent").count("column_0") >= 1
    assert browser.js("document.querySelectorAll('article').length && document.querySelector('.error').textContent")
    assert browser.js(PWNED) is None
    assert browser.problems == []


def comparison_page(tmp_path: Path) -> Path:
    """Two runs on 80 questions, half of which they answer differently; every text of theirs is an attack."""
    folders = []
    for name, right in (("a", (1, 0)), ("b<img src=x>", (1, 1))):
        folder = tmp_path / name
        folder.mkdir()
        verdicts = [
            {
                "question_id": f"{i} {ATTACK}",
                "db_id": ATTACK,
                "difficulty": ATTACK,
                "ex": right[i % 2],
                "question": f"Question {i} {ATTACK}",
                "sql": f"SELECT {'very_long_name_' * 20}{i} {ATTACK}",
            }
            for i in range(80)
        ]
        (folder / "verdicts.jsonl").write_text("".join(json.dumps(verdict) + "\n" for verdict in verdicts))
        scores = {"benchmark": "bird", "data": ATTACK, "totals": {"ex": {}}, "by_level": {ATTACK: {}}}
        (folder / "scores.json").write_text(json.dumps(scores))
        folders.append(str(folder))
    write_comparison(tmp_path / "compare.html", compare([read_run(folder) for folder in folders], None))
    return tmp_path / "compare.html"


@pytest.mark.parametrize("width", [390, 1280])
def test_a_comparison_fits_and_runs_nothing_of_its_contents(browser, tmp_path: Path, width: int) -> None:
    browser.open(comparison_page(tmp_path).as_uri(), width=width, ready=LOADED)
    browser.js("document.querySelectorAll('details').forEach((one) => { one.open = true })")
    assert browser.js(OVERFLOW) == 0
    assert browser.js("document.querySelectorAll('article').length") == 40
    assert browser.js("document.querySelector('article .tag').textContent") == f"#1 {ATTACK}"
    assert browser.js("document.images.length + document.scripts.length") == 0
    assert browser.js(PWNED) is None
    assert browser.problems == []


def test_a_script_that_escaping_missed_does_not_run(browser, page: str, tmp_path: Path) -> None:
    """The policy alone: texts of the pages are replaced by elements, as a gap in the escaping would leave them."""
    gap = (
        f'<script>{PWN}</script><img src="data:," onerror="{PWN}"><svg onload="{PWN}"></svg><a href="javascript:{PWN}">'
    )
    comparison = comparison_page(tmp_path)
    for name, file in (("report", Path(page.removeprefix("file://"))), ("comparison", comparison)):
        broken = tmp_path / f"{name}.html"
        broken.write_text(file.read_text().replace("</h1>", f"</h1>{gap}", 1))
        browser.open(broken.as_uri(), ready=LOADED)
        browser.js("document.querySelector('a').click()")
        assert browser.js(PWNED) is None
        assert any("Content Security Policy" in problem for problem in browser.problems)


def test_a_study_draws_its_plot_under_its_policy(browser, tmp_path: Path) -> None:
    curves = {name: np.array([[0.5, 0.4, 0.6], [0.75, 0.6, 0.9]]) for name in ("majority", "oracle")}
    file = tmp_path / "study.html"
    file.write_text(study_page(curves, (1, 2), f"2 questions, {ATTACK}"))
    browser.open(file.as_uri(), ready="document.querySelectorAll('.scatterlayer .trace').length === 2")
    assert browser.js(PWNED) is None
    assert browser.problems == []
    broken = tmp_path / "broken.html"
    broken.write_text(file.read_text().replace("<body>", f"<body><script>{PWN}</script>", 1))
    browser.open(broken.as_uri(), ready=LOADED)
    assert browser.js(PWNED) is None


def test_filters(browser, page: str) -> None:
    browser.open(page)
    assert browser.js(COUNT) == "60 of 60 wrong answers"

    def choose(name: str, value: str, event: str = "change") -> str:
        browser.js(
            f"(() => {{ const one = document.getElementById('{name}'); one.value = '{value}'; "
            f"one.dispatchEvent(new Event('{event}')) }})()"
        )
        return browser.js(COUNT)

    assert choose("level", "hard") == "30 of 60 wrong answers"
    assert choose("db", "database_1") == "16 of 60 wrong answers"
    assert choose("kind", "wrong") == "0 of 60 wrong answers"
    assert choose("kind", "error") == "16 of 60 wrong answers"
    assert choose("words", "question 1 ", "input") == "1 of 60 wrong answers"
    assert choose("words", "", "input") == "16 of 60 wrong answers"
    assert choose("db", "") == "30 of 60 wrong answers"
    assert browser.js("document.getElementById('more').textContent") == "Show more (10 left)"
    browser.js("document.getElementById('more').click()")
    assert browser.js("document.querySelectorAll('article').length") == 30
    assert browser.js("document.getElementById('more').hidden")
