"""Comparison of runs: differences, tests, corrections, conclusions, refusals."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.carriers import BenchmarkError
from benchmarks.compare import main
from benchmarks.comparison import compare, read_run


def write_run(folder: Path, right: Sequence[int | None], benchmark: str = "spider", question: str = "q") -> str:
    folder.mkdir(parents=True)
    verdicts = [
        {
            "index" if benchmark == "spider" else "question_id": i,
            "db_id": "dogs",
            "hardness": "easy",
            "difficulty": "simple",
            "exec": value,
            "ex": value,
            "soft_f1": None if value is None else value / 2,
            "sql": f"SELECT {value}",
            "question": f"{question} {i} <b>",
        }
        for i, value in enumerate(right)
    ]
    (folder / "verdicts.jsonl").write_text("".join(json.dumps(v) + "\n" for v in verdicts))
    scores = {
        "benchmark": benchmark,
        "data": "test",
        "totals": {"questions": 5, "exec": {}, "ex": {}, "soft_f1": {}},
        "by_level": {"easy": {}},
    }
    (folder / "scores.json").write_text(json.dumps(scores))
    return str(folder)


def test_a_winner_and_its_numbers(tmp_path: Path) -> None:
    weak = read_run(write_run(tmp_path / "weak", [0] * 60 + [1] * 40))
    strong = read_run(write_run(tmp_path / "strong", [1] * 30 + [0] * 30 + [1] * 38 + [0] * 2))
    result = compare([weak, strong], None)
    assert [run.name for run in result.runs] == [strong.name, weak.name]
    pair = result.pairs[0]
    assert (pair.only_first, pair.only_second) == (30, 2)
    assert pair.difference.mean == pytest.approx(-0.28)
    assert pair.p_value == pytest.approx(2 * (1 + 32 + 496) / 2**32)
    assert result.conclusion == f"{strong.name} wins: better than the other in exec"


def test_no_difference_shown_and_unscorable_left_out(tmp_path: Path) -> None:
    one = read_run(write_run(tmp_path / "one", [1, 0, 1, 0, None]))
    two = read_run(write_run(tmp_path / "two", [1, 1, 1, 0, 1]))
    result = compare([one, two], None)
    assert result.keys == (0, 1, 2, 3)
    assert result.pairs[0].p_value == 1.0
    assert result.conclusion.startswith("no difference shown between")
    assert compare([one, two], "soft_f1").pairs[0].p_value is None


def test_p_values_of_several_pairs_are_corrected_together(tmp_path: Path) -> None:
    alone = compare(
        [
            read_run(write_run(tmp_path / "a", [1] * 9 + [0] * 20)),
            read_run(write_run(tmp_path / "b", [0] * 9 + [1] + [0] * 19)),
        ],
        None,
    )
    third = read_run(write_run(tmp_path / "c", [0] * 9 + [1] + [0] * 19))
    together = compare([*alone.runs, third], None)
    raw = 2 * (1 + 10) / 2**10
    assert alone.pairs[0].p_value == pytest.approx(raw)
    assert [p.p_value for p in together.pairs] == [pytest.approx(3 * raw), pytest.approx(3 * raw), 1.0]
    assert alone.pairs[0].shown
    assert not together.pairs[0].shown


def test_the_command_writes_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [write_run(tmp_path / name, right) for name, right in (("a", [1, 0, 1]), ("b", [0, 1, 1]))]
    page = tmp_path / "page.html"
    assert main([*runs, f"output={page}"]) == 0
    assert "no difference shown" in capsys.readouterr().out
    text = page.read_text()
    assert "q 0 &lt;b&gt;" in text
    assert "2 disagreements" in text


def test_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spider = write_run(tmp_path / "a", [1, 0])
    for other, message in (
        (write_run(tmp_path / "b", [1, 0], benchmark="bird"), "is a run of spider"),
        (write_run(tmp_path / "c", [1, 0, 1]), "did not answer the same questions"),
        (write_run(tmp_path / "d", [1, 0], question="other"), "did not answer the same questions"),
        (spider, "at least two different runs"),
        (str(tmp_path / "missing"), "a finished run expected"),
    ):
        assert main([spider, other]) == 1
        assert message in capsys.readouterr().err
    with pytest.raises(BenchmarkError, match="no metric speed"):
        compare([read_run(spider), read_run(write_run(tmp_path / "e", [1, 1]))], "speed")
    assert main([spider, "size=3"]) == 2


def test_folders_that_hold_no_run(tmp_path: Path) -> None:
    good = read_run(write_run(tmp_path / "good", [1, 0]))
    with pytest.raises(BenchmarkError, match=r"good has no metric db_id; it has exec, ex, soft_f1"):
        compare([good, read_run(write_run(tmp_path / "other", [1, 0]))], "db_id")
    with pytest.raises(BenchmarkError, match=r"a finished run expected.*\(No such file or directory\)"):
        read_run(str(tmp_path))
    for content in ("[]", "{}", '{"benchmark": "rewards"}'):
        (tmp_path / "good" / "scores.json").write_text(content)
        with pytest.raises(BenchmarkError, match="the scores of benchmarks.spider, bird or demo expected"):
            read_run(str(tmp_path / "good"))
