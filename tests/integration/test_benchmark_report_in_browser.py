"""A benchmark report in a real browser: it fits, filters, shows both results, and runs nothing of its contents."""

from pathlib import Path

import pytest

from benchmarks.carriers import Answer, Answers, Judged
from benchmarks.report.page import write_report
from benchmarks.scores import summarise
from benchmarks.scoring.exhibit import table
from rewards.carriers import Execution

pytestmark = pytest.mark.integration

METRICS = ("exec", "exact")
LEVELS = ("easy", "hard")
ATTACK = '</script><script>document.documentElement.dataset.pwned=1</script><img src=x onerror="alert(1)">\'"'
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
    summary = summarise(examples, answers, METRICS, LEVELS, 200, 0)
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
    assert browser.js("document.documentElement.dataset.pwned") is None
    assert browser.problems == []


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
