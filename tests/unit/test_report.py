"""The report's geometry on known numbers, its views of a run, and that nothing a model wrote becomes markup."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from records.metrics_keys import PREPARATION, STAGES
from records.report import write_report
from records.report.chart import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Chart,
    Series,
    draw,
    number,
    smooth,
    thin,
    ticks,
)
from records.report.curves import merged, sections
from records.report.headline import results, stage_shares
from records.report.page import view
from records.report.samples import browser, first_and_last, highlighted, visible
from records.run_folder import RunFolderError, is_open, read_summary
from records.summary import summarise

ATTACK = (
    "</pre></script><script>document.documentElement.dataset.pwned=1</script>"
    "<img src=x onerror=alert(1)>'\"><svg onload=alert(2)>"
)


def line(*points: tuple[float, float], label: str = "a") -> Series:
    return Series(label=label, points=points)


def test_ticks_are_round_and_cover_the_values() -> None:
    assert ticks(0.0, 1.0) == [0.0, 0.5, 1.0]
    assert ticks(0.0, 0.8) == [0.0, 0.2, 0.4, 0.6, 0.8]
    assert ticks(3.0, 97.0) == [0.0, 50.0, 100.0]
    assert ticks(-2e-5, 7e-5) == [-5e-05, 0.0, 5e-05, 0.0001]
    assert ticks(2.0, 2.0)[0] <= 2.0 <= ticks(2.0, 2.0)[-1]


def test_numbers_are_short() -> None:
    assert number(0.6304, "share") == "63.0 %"
    assert [number(v, "nats") for v in (0.0, 0.00412, 12.345, 540000.0, 0.0000031)] == [
        "0",
        "0.00412",
        "12.3",
        "5.40e5",
        "3.10e-6",
    ]


def test_long_series_are_averaged_over_neighbours_and_end_at_the_last_step() -> None:
    points = [(float(step), float(step % 2)) for step in range(1, 1001)]
    short = thin(points, 100)
    assert len(short) == 100
    assert short[0] == (10.0, 0.5)
    assert short[-1] == (1000.0, 0.5)
    assert thin([], 5) == []
    assert smooth([0, 3, 6, 3, 0], 3) == [1.5, 3.0, 4.0, 3.0, 1.5]


def test_a_line_runs_from_corner_to_corner() -> None:
    drawn = draw(Chart(title="t", unit="nats", series=(line((0, 0.0), (10, 1.0)),)))
    assert drawn.series[0].dots == ((LEFT, HEIGHT - BOTTOM), (WIDTH - RIGHT, TOP))
    assert drawn.readout == {"x": [LEFT, WIDTH - RIGHT], "step": ["0", "10"], "values": [["0", "1"]]}
    assert drawn.description == "t. a: 0 at step 0, 1 at step 10"


def test_stacked_bars_stand_on_each_other() -> None:
    parts = (line((1, 1.0), (2, 2.0), label="low"), line((1, 3.0), label="high"))
    low, high = draw(Chart(title="t", unit="s", series=parts, kind="stack")).series
    assert high.bars[0].y + high.bars[0].height == pytest.approx(low.bars[0].y)
    assert high.bars[0].height == pytest.approx(3 * low.bars[0].height, abs=0.2)
    assert high.bars[0].y == TOP


def test_one_point_and_a_flat_line_can_be_drawn() -> None:
    assert draw(Chart(title="t", unit="share", series=(line((5, 1.0)),))).series[0].dots
    flat = draw(Chart(title="t", unit="share", series=(line((1, 0.99), (2, 0.99)),)))
    assert flat.y_ticks[-1][1] == "100 %"


def test_sections_show_what_was_measured_and_leave_gaps_for_null() -> None:
    rows = [
        {"step": 1, "version": 1, "policy/entropy": 1.0, "reward/error/syntax": 0.0},
        {"step": 2, "version": 2, "policy/entropy": None},
        {"step": 3, "version": 3, "policy/entropy": 0.5},
        {"step": 3, "version": 3, "eval/greedy_ex": 0.5},
    ]
    assert merged(rows)[-1] == {"step": 3, "version": 3, "policy/entropy": 0.5, "eval/greedy_ex": 0.5}
    found = {chart.title: chart for section in sections(rows) for chart in section.charts}
    assert set(found) == {"Held-out accuracy", "Entropy"}
    assert found["Entropy"].readout["step"] == ["1", "3"]
    assert sections([]) == ()


def test_headline_tiles_say_how_far_the_run_came(tmp_path: Path, make_run) -> None:
    summary = read_summary(make_run(tmp_path / "r", steps=20))
    assert summary is not None
    tiles = {tile.label: tile for tile in results(summary)}
    assert tiles["Greedy accuracy"].value == "63.0 %"
    assert tiles["Greedy accuracy"].change == "+22.0 points"
    assert tiles["Greedy accuracy"].before == "41.0 %"
    assert tiles["Voting accuracy"].value == "66.3 %"
    shares = stage_shares({"generate": 30.0, "train": 10.0, "sync": 0.0})
    assert [(s.stage, s.percent) for s in shares] == [("generate", 75.0), ("train", 25.0)]


def test_the_first_and_the_newest_groups_are_kept() -> None:
    rows = [{"n": n} for n in range(100)]
    kept, total = first_and_last(iter(rows), first=2, last=3)
    assert ([row["n"] for row in kept], total) == ([0, 1, 97, 98, 99], 100)
    assert first_and_last(rows[:3], first=2, last=3) == (rows[:3], 3)


def test_invisible_and_direction_changing_characters_are_spelled_out() -> None:
    assert visible("a\u202eb\x00\x1b[31m\ud800\u200b\t\n", 100) == "a⟨U+202E⟩b⟨U+0000⟩⟨U+001B⟩[31m⟨U+D800⟩⟨U+200B⟩\t\n"
    assert visible("abcdef", 3) == "abc\n… 3 more characters"


def test_highlighting_keeps_the_text_and_escapes_it() -> None:
    markup = highlighted("SELECT '<b>' -- " + ATTACK)
    assert "hl-k" in markup
    assert not re.search(r"<(?!/?span)", markup)
    assert markup.striptags().startswith("SELECT '<b>' -- </pre>")


def completion(**changes: object) -> dict:
    row = {
        "text": "SELECT 1",
        "tokens": 3,
        "finish_reason": "stop",
        "status": "scored",
        "correct": False,
        "total": 1.0,
        "components": {"format": 1.0, "memory": None, "atomic": 0.0},
        "sql": "SELECT 1",
        "error_kind": None,
        "error": None,
        "flags": [],
    }
    return row | changes


def group(*completions: dict, **changes: object) -> dict:
    row = {
        "step": 1,
        "version": 1,
        "group_id": "0-1",
        "task_id": "t",
        "db_id": "d",
        "difficulty": None,
        "question": "q",
        "evidence": "",
        "gold_sqls": ["SELECT 1"],
        "prompt": "p",
        "prompt_tokens": 4,
        "completions": list(completions),
    }
    return row | changes


def test_equal_completions_are_shown_once_and_counted() -> None:
    right, unscorable = completion(correct=True), completion(status="unscorable", total=None, components={}, sql=None)
    (shown,) = browser([group(completion(), right, completion(), unscorable)], 1).groups
    assert [(one.outcome, one.count) for one in shown.completions] == [("wrong", 2), ("right", 1), ("unscorable", 1)]
    assert (shown.outcome, shown.right, shown.size) == ("mixed", 1, 4)
    assert shown.completions[0].full == "format"
    assert shown.completions[0].zero == "atomic"
    assert shown.completions[0].text == ""
    assert browser([group(right, unscorable)], 1).groups[0].outcome == "right"
    assert browser([group(unscorable)], 1).groups[0].outcome == "unscorable"
    caused = completion(status="unscorable", total=None, components={}, sql=None, cause="data")
    totals = [one.total for one in browser([group(unscorable, caused)], 1).groups[0].completions]
    assert totals == ["unscorable", "unscorable: data"]


class Tags(HTMLParser):
    """Counts elements and gathers event-handler attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.handlers: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on")]


def test_nothing_a_model_or_a_data_set_wrote_becomes_markup(tmp_path: Path, make_run) -> None:
    path = make_run(tmp_path / "attacked", steps=2)
    hostile = completion(
        text=f"<think>{ATTACK}</think>",
        sql=ATTACK,
        error=ATTACK,
        error_kind=ATTACK,
        flags=[ATTACK],
        components={ATTACK: 0.5},
    )
    names = dict.fromkeys(("task_id", "db_id", "difficulty", "question", "evidence", "prompt"), ATTACK)
    row = group(hostile, gold_sqls=[ATTACK], **names)
    (path / "samples.jsonl").write_text(json.dumps(row) + "\n")
    (path / "config.yaml").write_text(json.dumps({"model": {"type": ATTACK}, "seed": 0}))
    summary = read_summary(path)
    (path / "summary.json").write_text(
        json.dumps(summary | {"status": "failed", "error": ATTACK, "versions": {ATTACK: ATTACK}})
    )
    tags = Tags(write_report(path).read_text())
    assert tags.names.count("script") == 1
    assert "img" not in tags.names
    assert tags.handlers == []
    clean = Tags(write_report(make_run(tmp_path / "clean", steps=2)).read_text())
    assert tags.names.count("svg") == clean.names.count("svg")


def test_the_page_asks_for_nothing_outside_itself(tmp_path: Path, make_run) -> None:
    text = write_report(make_run(tmp_path / "r", steps=3)).read_text()
    assert not re.search(r"https?://|\bsrc=|@import|url\(|<link", text)
    assert "default-src 'none'" in text


def test_runs_without_end_samples_or_steps_have_a_report(tmp_path: Path, make_run) -> None:
    unfinished = make_run(tmp_path / "a", steps=25, asked=60, finished=False)
    run = view(unfinished)
    assert (run.status, run.step, run.steps) == ("unfinished", 25, 60)
    assert {tile.label: tile.value for tile in run.results}["Greedy accuracy"] == "63.0 %"
    empty = make_run(tmp_path / "b", steps=0, samples=False, finished=False)
    assert "No group has been written" in write_report(empty).read_text()
    (empty / "metrics.jsonl").write_text("")
    (empty / "config.yaml").unlink()
    text = write_report(empty).read_text()
    assert "No step has finished yet" in text
    assert "holds no config.yaml" in text
    with pytest.raises(RunFolderError, match="no run folder"):
        write_report(tmp_path)
    assert not is_open(unfinished)


def test_tiles_say_what_the_charts_end_with(tmp_path: Path, make_run) -> None:
    """Also of a run that was stopped between two evaluations, whose summary has none of its last step."""
    path = make_run(tmp_path / "r", steps=47, asked=60, finished=False)
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    rows[-1] = {key: value for key, value in rows[-1].items() if not key.startswith("eval/")}
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    summary = summarise(
        rows, status="stopped", error="interrupted", wall_s=400, n=30, selection="value_aware", seed=0, versions={}
    )
    assert summary.greedy_ex_after is None
    (path / "summary.json").write_text(json.dumps(summary.as_json()))
    run = view(path)
    charts = {
        chart.title: {one.label: one.latest for one in chart.series} for part in run.sections for chart in part.charts
    }
    tiles = {tile.label: tile for tile in (*run.results, *run.costs)}
    accuracy = charts["Held-out accuracy"]
    for label, series in (
        ("Greedy accuracy", "greedy"),
        ("Mean accuracy", "mean@n"),
        ("Voting accuracy", "voting"),
        ("Recall", "recall@n"),
    ):
        assert tiles[label].value == accuracy[series]
        assert tiles[label].note.endswith(", step 40")
    assert tiles["Training reward"].value.startswith(charts["Combined reward"]["mean"][:3])
    pace = [row["perf/completions_per_s"] for row in rows if "perf/completions_per_s" in row]
    said = float(tiles["Completions"].note.split()[0])
    assert min(pace) * 0.9 < said < max(pace) * 1.1


def test_a_long_runs_last_value_is_the_measured_one() -> None:
    points = tuple((step, float(step)) for step in range(1, 401))
    drawn = draw(Chart(title="t", unit="reward", series=(line(*points),)))
    assert drawn.series[0].latest == "400"
    assert drawn.description.endswith("1 at step 1, 400 at step 400")


def test_every_stage_of_a_run_has_a_colour_of_its_own() -> None:
    style = (Path(__file__).parents[2] / "records" / "report" / "report.css").read_text()
    for number_ in range(len(PREPARATION) + len(STAGES) + 1):
        assert f".c{number_} {{ --c: var(--c{number_}); }}" in style
        assert style.count(f"--c{number_}: #") == 2
