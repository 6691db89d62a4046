"""Prediction files: every format, files for more questions than asked, files that answer something else."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.carriers import Answer, BenchmarkError, Question, QuestionSet
from benchmarks.folder import held
from benchmarks.generation.progress import Progress
from benchmarks.predictions import candidate_lines, read_predictions

MARK = "\t----- bird -----\t"


def asked(keys: tuple[int, ...], whole: int | None = None) -> QuestionSet:
    questions = tuple(
        Question(position=i, key=key, db_id="dogs", question="?", gold="SELECT 1", databases=("x",))
        for i, key in enumerate(keys)
    )
    return QuestionSet(name="test", questions=questions, whole=len(keys) if whole is None else whole)


def write(tmp_path: Path, name: str, content: object) -> str:
    (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return str(tmp_path / name)


def texts(path: str, questions: QuestionSet) -> list[tuple[str, ...]]:
    return [answer.candidates for answer in read_predictions(path, questions).answers]


def test_lines(tmp_path: Path) -> None:
    file = write(tmp_path, "p.txt", "SELECT 1\tdogs\n\n  SELECT 3\r\n")
    assert texts(file, asked((0, 1, 2))) == [("SELECT 1",), ("",), ("SELECT 3",)]


def test_bird_by_id_by_place_and_without_text(tmp_path: Path) -> None:
    by_id = write(tmp_path, "a.json", {"12": f"SELECT 1{MARK}dogs", "7": "SELECT 2"})
    assert texts(by_id, asked((7, 12))) == [("SELECT 2",), ("SELECT 1",)]
    by_place = write(tmp_path, "b.json", {"0": f"SELECT 1{MARK}dogs", "1": 0})
    assert texts(by_place, asked((7, 12))) == [("SELECT 1",), ("",)]


def test_a_file_for_the_whole_set_serves_its_first_questions(tmp_path: Path) -> None:
    lines = write(tmp_path, "p.txt", "SELECT 1\nSELECT 2\nSELECT 3\n")
    table = write(tmp_path, "p.json", {str(i): f"SELECT {i + 1}" for i in range(3)})
    rows = write(
        tmp_path, "p.jsonl", "".join(f'{{"index": {i}, "candidates": ["SELECT {i + 1}"]}}\n' for i in range(3))
    )
    for file in (lines, table, rows):
        assert texts(file, asked((0, 1), whole=3)) == [("SELECT 1",), ("SELECT 2",)]
        with pytest.raises(BenchmarkError, match="2 (lines|questions).* expected"):
            read_predictions(file, asked((0, 1)))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.txt", "", "is empty: predictions for 2 questions expected"),
        ("p.jsonl", "\n\n", "is empty: predictions for 2 questions expected"),
        ("p.json", [1, 2], "BIRD's JSON object expected, found a list"),
        ("p.json", "SELECT 1\nSELECT 2\n", "p.json line 1: BIRD's JSON object expected"),
        ("p.txt", '{"index": 0}\n{"index": 1}\n', r"JSON lines need a name ending in .jsonl"),
        ("p.json", {"0": f"SELECT 1{MARK}cats", "1": f"SELECT 1{MARK}cats"}, "2 of 2 entries name another database"),
        ("p.jsonl", '{"index": 0, "candidates": ["x"]}\n' * 2, "line 2: question 0 appears a second time"),
    ],
)
def test_files_that_do_not_fit(name: str, content: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=message):
        read_predictions(write(tmp_path, name, content), asked((0, 1)))


def test_candidates_that_a_run_writes_can_be_read_again(tmp_path: Path) -> None:
    questions = asked((5, 6))
    answers = (
        Answer(candidates=("a\nb", "c"), logprobs=(-1.5, -2.0), greedy="d"),
        Answer(candidates=("é", "")),
    )
    rows = candidate_lines("question_id", questions.questions, answers, "bird")
    file = write(tmp_path, "candidates.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert read_predictions(file, questions).answers == answers


def test_one_run_holds_a_folder_and_a_killed_one_lets_go(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    code = f"from benchmarks.folder import held\nwith held({str(folder)!r}):\n print('held', flush=True)\n input()"
    root = Path(__file__).resolve().parents[2]
    other = subprocess.Popen(
        [sys.executable, "-c", code], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(BenchmarkError, match=r"output=.*run is in use by another run"), held(str(folder)):
            pass
    finally:
        other.kill()
        other.wait()
    with held(str(folder)) as mine:
        assert mine == folder


def test_a_file_in_the_way_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(BenchmarkError, match="cannot be used as a folder: File exists"), held(str(tmp_path / "run")):
        pass


def test_generations_that_no_run_wrote_are_refused_and_a_cut_line_is_dropped(tmp_path: Path) -> None:
    file, record = tmp_path / "generations.jsonl", {"key": 3, "completions": [], "greedy": None, "prompt_tokens": 0}
    with Progress(tmp_path, {"model": "a"}, 2) as progress:
        progress.add(record)
    file.write_text(file.read_text() + '{"key": 4, "comp')
    with Progress(tmp_path, {"model": "a"}, 2) as progress:
        assert progress.done == {3: record}
        progress.add({**record, "key": 4})
    assert [json.loads(line).get("key") for line in file.read_text().splitlines()] == [None, 3, 4]
    with pytest.raises(BenchmarkError, match=r"other settings \(model\)"):
        Progress(tmp_path, {"model": "b"}, 2)
    for content in ("nonsense\n", "[1]\n", '{"made_with": {"model": "a"}}\n{"other": 1}\n'):
        file.write_text(content)
        with pytest.raises(BenchmarkError, match="is no file of generations: choose another output=DIR"):
            Progress(tmp_path, {"model": "a"}, 2)
        assert file.read_text() == content
