"""Comparison of runs: differences, tests, corrections, conclusions, refusals."""

import json
import os
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


def test_every_metric_is_corrected_over_all_pairs(tmp_path: Path) -> None:
    """20 equal runs and one that is better on 7 questions: p = 2/128 alone, which 210 pairs may show by chance."""
    equal = [0] * 40
    runs = [read_run(write_run(tmp_path / f"r{i}", equal, benchmark="bird")) for i in range(20)]
    best = read_run(write_run(tmp_path / "best", [1] * 7 + [0] * 33, benchmark="bird"))
    alone = compare([best, runs[0]], "soft_f1").pairs[0]
    assert alone.p_value == pytest.approx(2 / 128, abs=0.004)
    assert alone.shown
    for metric in ("soft_f1", "ex"):
        together = compare([*runs, best], metric)
        assert not any(pair.shown for pair in together.pairs)
        assert together.conclusion.startswith("no difference shown between")
    clear = compare([read_run(write_run(tmp_path / "clear", [1] * 40, benchmark="bird")), *runs[:3]], "soft_f1")
    assert [pair.shown for pair in clear.pairs] == [True] * 3 + [False] * 3


def test_white_space_around_a_question_makes_it_no_other_question(tmp_path: Path) -> None:
    """Runs of earlier versions wrote BIRD's questions as they stand in the file, two of them with a line end."""
    earlier, later = (write_run(tmp_path / name, [1, 0]) for name in ("earlier", "later"))
    rewrite(Path(earlier), 1, question="q 1 <b> \n")
    assert compare([read_run(earlier), read_run(later)], None).keys == (0, 1)


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


def rewrite(folder: Path, line: int, **fields: object) -> None:
    verdicts = [json.loads(text) for text in (folder / "verdicts.jsonl").read_text().splitlines()]
    verdicts[line] |= fields
    (folder / "verdicts.jsonl").write_text("".join(json.dumps(v) + "\n" for v in verdicts))


def test_questions_that_share_an_id_are_all_compared(tmp_path: Path) -> None:
    for name, right in (("a", [1, 0, 1, 1]), ("b", [1, 1, 0, 0])):
        write_run(tmp_path / name, right, benchmark="bird")
        for line in (1, 2):
            rewrite(tmp_path / name, line, question_id=137, question="asked twice")
    result = compare([read_run(str(tmp_path / "a")), read_run(str(tmp_path / "b"))], None)
    assert result.keys == (0, 1, 2, 3)
    assert sorted((result.pairs[0].only_first, result.pairs[0].only_second)) == [1, 2]


ATTACK = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


def test_everything_on_the_page_is_escaped_and_no_script_may_run(tmp_path: Path) -> None:
    folders = []
    for name, right in (("a", [1, 0]), ("b<img src=x onerror=alert(2)>", [0, 1])):
        folders.append(write_run(tmp_path / name, right, benchmark="bird"))
        texts = {"question_id": ATTACK, "question": ATTACK, "sql": ATTACK, "db_id": ATTACK, "difficulty": ATTACK}
        rewrite(tmp_path / name, 0, **texts)
        scores = json.loads((tmp_path / name / "scores.json").read_text())
        scores |= {"data": ATTACK, "by_level": {ATTACK: {}}}
        (tmp_path / name / "scores.json").write_text(json.dumps(scores))
    page = tmp_path / "page.html"
    assert main([*folders, f"output={page}"]) == 0
    text = page.read_text()
    assert "<img" not in text
    assert "<script" not in text
    assert text.count("&lt;script&gt;alert(1)") >= 5
    assert "default-src 'none'" in text.split("<title>")[0]
    assert "script-src 'none'" in text.split("<title>")[0]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"question_id": ["x"]}, "line 2: a verdict expected, with db_id, question, sql, question_id, difficulty"),
        ({"question": 5}, "line 2: a verdict expected"),
        ({"sql": None}, "line 2: a verdict expected"),
        ({"difficulty": 5}, "line 2: a verdict expected"),
        ({"ex": "<script>"}, "line 2: a number expected under ex"),
        ({"ex": float("nan")}, "not the files of a benchmark run: NaN is no JSON number"),
    ],
)
def test_verdicts_of_the_wrong_type(
    fields: dict[str, object], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [write_run(tmp_path / name, [1, 0], benchmark="bird") for name in ("a", "b")]
    rewrite(tmp_path / "b", 1, **fields)
    assert main([*folders, f"output={tmp_path / 'page.html'}"]) == 1
    assert message in capsys.readouterr().err


def test_a_page_is_written_anew_and_no_other_file_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [write_run(tmp_path / name, [1, 0]) for name in ("a", "b")]
    page = tmp_path / "page.html"
    assert main([*runs, f"output={page}"]) == main([*runs, f"output={page}"]) == 0
    scores = tmp_path / "a" / "scores.json"
    before = scores.read_text()
    assert main([*runs, f"output={scores}"]) == 1
    assert "scores.json is no page of a comparison: choose another output=FILE" in capsys.readouterr().err
    assert scores.read_text() == before
    os.mkfifo(tmp_path / "pipe")
    for output in (tmp_path, tmp_path / "pipe", "/dev/null"):
        assert main([*runs, f"output={output}"]) == 1
        assert f"output={output} is no file: choose another output=FILE" in capsys.readouterr().err
    assert not Path("/dev/null").is_file()


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
