"""Prediction files: every format, files for more questions than asked, files that answer something else."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.carriers import Answer, BenchmarkError, Key, Question, QuestionSet
from benchmarks.folder import held
from benchmarks.generation.progress import Progress
from benchmarks.official import write_bird
from benchmarks.predictions import candidate_lines, read_predictions

MARK = "\t----- bird -----\t"


def asked(keys: tuple[int, ...], whole: int | None = None) -> QuestionSet:
    questions = tuple(
        Question(position=i, key=key, db_id="dogs", question="?", gold="SELECT 1", databases=("x",))
        for i, key in enumerate(keys)
    )
    return QuestionSet(name="test", questions=questions, whole=len(keys) if whole is None else whole)


def whole_set(
    ids: Sequence[Key], *, first: int | None = None, shared: Sequence[str] = (), dbs: str = ""
) -> QuestionSet:
    """BIRD questions with these ids, or the first of them; question i is asked of the database of the i-th letter."""
    questions = tuple(
        Question(position=i, key=key, db_id=dbs[i] if dbs else "dogs", question="?", gold="SELECT 1", databases=("x",))
        for i, key in enumerate(ids)
    )
    return QuestionSet(
        name="BIRD", questions=questions[:first], whole=len(ids), keys=tuple(ids), shared=frozenset(shared)
    )


def table(names: Sequence[int], dbs: str = "") -> dict[str, str]:
    """BIRD's object whose entries say under which name they stand."""
    return {str(n): f"SELECT {n}{MARK}{dbs[i]}" if dbs else f"SELECT {n}" for i, n in enumerate(names)}


def rows(names: Sequence[Key], name: str = "question_id") -> str:
    """JSON lines whose candidates say in which line they stand."""
    return "".join(json.dumps({name: key, "candidates": [f"SELECT {i}"]}) + "\n" for i, key in enumerate(names))


def first_numbers(path: str, questions: QuestionSet) -> list[int]:
    return [int(candidates[0].split()[1]) for candidates in texts(path, questions)]


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


@pytest.mark.parametrize("first", [None, 1, 2, 6, 12])
def test_a_limit_does_not_change_which_prediction_answers_a_question(first: int | None, tmp_path: Path) -> None:
    """Ids 5 to 16 overlap the places 0 to 11: each file answers alike, whole or in part."""
    asked_for, count = whole_set(range(5, 17), first=first), first or 12
    by_place = write(tmp_path, "place.json", table(range(12)))
    by_id = write(tmp_path, "id.json", table(range(16, 4, -1)))
    assert first_numbers(by_place, asked_for) == list(range(count))
    assert first_numbers(by_id, asked_for) == list(range(5, 5 + count))
    lines_by_place = write(tmp_path, "place.jsonl", rows(range(12), "index"))
    lines_by_id = write(tmp_path, "id.jsonl", rows(range(5, 17)))
    assert first_numbers(lines_by_place, asked_for) == first_numbers(lines_by_id, asked_for) == list(range(count))


def test_files_for_a_part_are_read_by_what_their_names_can_be(tmp_path: Path) -> None:
    six = whole_set(range(5, 17), first=6)
    assert first_numbers(write(tmp_path, "a.json", table(range(6))), six) == [0, 1, 2, 3, 4, 5]
    assert first_numbers(write(tmp_path, "b.json", table(range(5, 11))), six) == [5, 6, 7, 8, 9, 10]
    assert first_numbers(write(tmp_path, "c.json", table(range(11))), six) == [0, 1, 2, 3, 4, 5]
    for wrong, message in (
        (range(1, 7), r"6 questions expected; .*missing"),
        (range(17), r"6 questions expected; .*unknown"),
        (range(5), r"6 questions expected; 1 missing \(5\)"),
    ):
        with pytest.raises(BenchmarkError, match=message):
            read_predictions(write(tmp_path, "d.json", table(wrong)), six)


def test_names_that_are_ids_of_some_and_places_of_other_questions(tmp_path: Path) -> None:
    """The databases that the entries name decide; where they cannot, the file is refused."""
    turned = whole_set((2, 0, 1), dbs="abc")
    assert first_numbers(write(tmp_path, "a.json", table((0, 1, 2), "abc")), turned) == [0, 1, 2]
    assert first_numbers(write(tmp_path, "b.json", table((0, 1, 2), "bca")), turned) == [2, 0, 1]
    for dbs in ("", "cab"):
        with pytest.raises(BenchmarkError, match="its keys are places as well as ids of other questions"):
            read_predictions(write(tmp_path, "c.json", table((0, 1, 2), dbs)), turned)
    with pytest.raises(BenchmarkError, match="its keys are places as well as ids of other questions"):
        read_predictions(write(tmp_path, "d.json", table((0, 1, 2), "aaa")), whole_set((2, 0, 1), dbs="aaa"))


MINI = (7, 8, 8, 9)


def test_a_question_asked_twice_takes_an_answer_by_place_or_by_id(tmp_path: Path) -> None:
    mini = whole_set(MINI)
    assert first_numbers(write(tmp_path, "a.json", table((0, 1, 2, 3))), mini) == [0, 1, 2, 3]
    assert first_numbers(write(tmp_path, "b.json", table((7, 8, 9))), mini) == [7, 8, 8, 9]
    assert first_numbers(write(tmp_path, "a.jsonl", rows(MINI)), mini) == [0, 1, 2, 3]
    assert first_numbers(write(tmp_path, "b.jsonl", rows((9, 8, 7, 8))), mini) == [2, 1, 3, 0]
    assert first_numbers(write(tmp_path, "c.jsonl", rows((7, 8, 9))), mini) == [0, 1, 1, 2]
    assert first_numbers(write(tmp_path, "d.jsonl", rows((3, 2, 1, 0), "index")), mini) == [3, 2, 1, 0]
    assert first_numbers(write(tmp_path, "a.jsonl", rows(MINI)), whole_set(MINI, first=2)) == [0, 1]
    with pytest.raises(BenchmarkError, match="line 4: question 8 appears a third time"):
        read_predictions(write(tmp_path, "e.jsonl", rows((7, 8, 8, 8, 9))), mini)
    with pytest.raises(BenchmarkError, match="4 questions expected; 1 missing"):
        read_predictions(write(tmp_path, "f.jsonl", rows((0, 1, 3), "index")), mini)


def test_an_id_of_different_questions_needs_places_or_the_order_of_the_question_file(tmp_path: Path) -> None:
    mini = whole_set(MINI, shared=("8",))
    assert first_numbers(write(tmp_path, "a.jsonl", rows(MINI)), mini) == [0, 1, 2, 3]
    assert first_numbers(write(tmp_path, "a.json", table((0, 1, 2, 3))), mini) == [0, 1, 2, 3]
    with pytest.raises(BenchmarkError, match='line 2: question_id 8 stands for different questions: give "index" too'):
        read_predictions(write(tmp_path, "b.jsonl", rows((9, 8, 7, 8))), mini)
    with pytest.raises(BenchmarkError, match="question_id 8 stands for different questions: count .* place, 0 to 3"):
        read_predictions(write(tmp_path, "b.json", table((7, 8, 9))), mini)
    both = "".join(
        json.dumps({"index": i, "question_id": MINI[i], "candidates": [f"SELECT {i}"]}) + "\n" for i in (2, 0, 1, 3)
    )
    assert first_numbers(write(tmp_path, "c.jsonl", both), mini) == [0, 1, 2, 3]
    with pytest.raises(BenchmarkError, match="line 1: question 7 is not at place 2"):
        read_predictions(write(tmp_path, "d.jsonl", both.replace('"question_id": 8', '"question_id": 7')), mini)


def test_a_run_of_repeated_ids_writes_what_can_be_read_again(tmp_path: Path) -> None:
    mini = whole_set(MINI, shared=("8",))
    write_bird(tmp_path, mini.questions, ["SELECT 0", "SELECT 1", "SELECT 2", "SELECT 3"])
    assert first_numbers(str(tmp_path / "official" / "predict_dev.json"), mini) == [0, 1, 2, 3]
    answers = tuple(Answer(candidates=(f"SELECT {i}",)) for i in range(4))
    lines = candidate_lines("question_id", mini.questions, answers, "bird")
    file = write(tmp_path, "c.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    assert first_numbers(file, mini) == [0, 1, 2, 3]


def test_ids_may_be_texts(tmp_path: Path) -> None:
    named = whole_set(("b", "a", 5))
    assert first_numbers(write(tmp_path, "a.jsonl", rows(("a", "b", "5"))), named) == [1, 0, 2]
    assert texts(write(tmp_path, "a.json", {"5": "x", "a": "y", "b": "z"}), named) == [("z",), ("y",), ("x",)]


NUMBERS = [
    *("[NaN, -1]", "[-1, Infinity]", "[-Infinity, -1]", "[1e999, -1]", "[-1, 5.0]", "[true, -1]", "[null, -1]"),
    *("[-1]", '["-1", -1]', "{}", f"[-1, -{10**400}]"),
]


@pytest.mark.parametrize("logprobs", NUMBERS)
def test_log_probabilities_that_cannot_be_compared(logprobs: str, tmp_path: Path) -> None:
    good = '{"index": 0, "candidates": ["a", "b"], "logprobs": [-1, -0.5]}\n'
    bad = f'{{"index": 1, "candidates": ["a", "b"], "logprobs": {logprobs}}}\n'
    with pytest.raises(BenchmarkError, match=r"p.jsonl line 2: .*(no JSON number|\"logprobs\" must hold)"):
        read_predictions(write(tmp_path, "p.jsonl", good + bad), asked((0, 1)))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.json", '{"0": "SELECT 1", "1": "SELECT 2", "1": "SELECT 3"}', '"1" appears a second time'),
        ("p.json", "[" * 100_000, "BIRD's JSON object expected"),
        ("p.jsonl", "[" * 100_000, "line 1: a JSON object expected"),
        ("p.jsonl", "[1]", 'line 1: an object with a number under "index"'),
        ("p.jsonl", '{"index": true, "candidates": ["x"]}', 'line 1: an object with a number under "index"'),
        ("p.jsonl", '{"index": "0", "candidates": ["x"]}', 'line 1: an object with a number under "index"'),
        ("p.jsonl", '{"index": 0, "candidates": ["x"], "prompt_tokens": "5"}', "a number of tokens expected"),
        ("p.jsonl", '{"index": -1, "candidates": ["x"]}\n{"index": 0, "candidates": ["x"]}', r"1 unknown \(-1\)"),
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
    nan = '{"made_with": {"model": "a"}}\n{"key": 1, "completions": [{"logprob": NaN}]}\n'
    for content in ("nonsense\n", "[1]\n", '{"made_with": {"model": "a"}}\n{"other": 1}\n', nan):
        file.write_text(content)
        with pytest.raises(BenchmarkError, match="is no file of generations: choose another output=DIR"):
            Progress(tmp_path, {"model": "a"}, 2)
        assert file.read_text() == content
