"""Candidate files, ballots, features, the study and the reranker, on a small database."""

import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from benchmarks.study import __main__ as study
from benchmarks.study import train_reranker
from benchmarks.study.ballots import Ballot, ballots
from benchmarks.study.candidates import CandidatesUnusable, read_candidates
from benchmarks.study.train_reranker import fit
from conf.errors import ConfigError
from conf.load import load
from conf.output import OutputTaken
from conf.schema.selection import RerankerTraining, StudyConfig
from selection.candidate import Candidate, Context
from selection.features import NAMES, features
from selection.reranker import RerankerUnusable, load_reranker
from tests.dogs import write_dogs
from tests.unit.losing_pool import LosingPool

GOLD = "SELECT name FROM dog WHERE age > 3"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for db_id in ("dogs", "pets"):
        file = tmp_path / "database" / db_id / f"{db_id}.sqlite"
        file.parent.mkdir(parents=True)
        for path, last in ((file, 3), (file.with_name(f"{db_id}_v1.sqlite"), 4)):
            write_dogs(path, [("Rex", 2), ("Ada", 5), ("Bo", last)])
    entries = [{"db_id": d, "question": f"Names of dogs older than 3, {d}?", "query": GOLD} for d in ("dogs", "pets")]
    (tmp_path / "dev.json").write_text(json.dumps(entries))
    (tmp_path / "train_spider.json").write_text(json.dumps(entries))
    return tmp_path


def write(root: Path, indices: tuple[int, ...] = (0, 1)) -> Path:
    texts = [
        GOLD,
        "SELECT name FROM dog WHERE age >= 4",
        "SELECT name FROM dog WHERE age > 4",
        "SELECT age FROM dog",
        "x",
    ]
    rows = [{"index": i, "candidates": texts, "logprobs": [-1, -2, -3, -4, -5]} for i in indices]
    (root / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root / "c.jsonl"


def polls(root: Path, *settings: str) -> list[Ballot]:
    arguments = [f"candidates={write(root)}", "data=spider", f"data.root={root}", "output=unused", *settings]
    config = load(StudyConfig, "selection_study", arguments)
    return list(ballots(read_candidates(config), config))


def test_a_question_that_lost_a_candidate_has_no_ballot(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = LosingPool(1)
    pool.loses = lambda query: query.sql == "SELECT age FROM dog" and "dogs" in query.database
    monkeypatch.setattr("benchmarks.study.ballots.ExecutorPool", lambda count: pool)
    assert [ballot.db_id for ballot in polls(root)] == ["pets"]


def test_right_means_right_on_every_instance_asked_for(root: Path) -> None:
    # On the primary instance nobody is 4 years old, so "> 4" looks right there.
    assert polls(root)[0].right == {0, 1}
    assert polls(root, "instances=primary")[0].right == {0, 1, 2}
    assert [c.failed for c in polls(root)[0].candidates] == [False, False, False, False, True]


def test_what_another_program_left_beside_a_database_is_no_instance(root: Path) -> None:
    (root / "database" / "dogs" / "._dogs.sqlite").write_bytes(b"Mac OS X" * 500)
    assert [ballot.right for ballot in polls(root)] == [{0, 1}, {0, 1}]


def test_right_is_what_the_gold_accepts(root: Path) -> None:
    """Two dogs of the second instance tie: whichever comes first, the answer is right."""
    gold = "SELECT age FROM dog ORDER BY length(name) LIMIT 1"
    (root / "dev.json").write_text(json.dumps([{"db_id": "dogs", "question": "?", "query": gold}]))
    with sqlite3.connect(root / "database" / "dogs" / "dogs.sqlite") as connection:
        connection.execute("INSERT INTO dog VALUES ('Cy', 8)")
    connection.close()
    rows = {"index": 0, "candidates": [gold, "SELECT age FROM dog ORDER BY length(name), age DESC LIMIT 1"]}
    (root / "c.jsonl").write_text(json.dumps(rows) + "\n")
    arguments = [f"candidates={root / 'c.jsonl'}", "data=spider", f"data.root={root}", "output=unused"]
    config = load(StudyConfig, "selection_study", arguments)
    (ballot,) = ballots(read_candidates(config), config)
    assert ballot.right == {0, 1}
    assert len({c.digest for c in ballot.candidates}) == 2


def test_features_see_agreement_and_the_question(root: Path) -> None:
    ballot = polls(root)[0]
    table = features(ballot.candidates, ballot.context)
    assert table.shape == (5, len(NAMES))
    column = {name: table[:, i] for i, name in enumerate(NAMES)}
    assert column["vote share of its result"].tolist() == [0.6, 0.6, 0.6, 0.2, 0.0]
    assert column["agreement on all instances"].tolist() == [0.4, 0.4, 0.2, 0.2, 0.0]
    assert column["did not run"].tolist() == [0, 0, 0, 0, 1]
    assert column["question words in the query"][0] > column["question words in the query"][3]
    assert column["atomic similarity to the others"][0] > column["atomic similarity to the others"][3]
    assert column["log-probability against the mean"][0] == pytest.approx(np.sqrt(2))
    shuffled = ballot.candidates[::-1]
    assert np.allclose(features(shuffled, ballot.context), table[::-1])


def test_the_study_writes_a_table_and_a_page(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = load(
        StudyConfig,
        "selection_study",
        [f"candidates={write(root)}", "data=spider", f"data.root={root}", f"output={root / 'out'}"],
    )
    assert study.job(config) == 0
    curves = json.loads((root / "out" / "study.json").read_text())["curves"]
    assert set(curves) >= {"value_aware", "majority", "oracle", "first", "soft_vote"}
    assert len(curves["oracle"]) == 5
    assert curves["oracle"][-1] == [1.0, pytest.approx(0.34238, abs=1e-5), 1.0]
    assert curves["first"][0][0] <= 1.0
    assert "oracle" in capsys.readouterr().out
    assert "<table>" in (root / "out" / "study.html").read_text()


def test_a_reranker_learns_saves_and_refuses_what_it_was_trained_on(root: Path) -> None:
    config = load(
        RerankerTraining,
        "selection_train",
        [f"candidates={write(root)}", "data=spider", f"data.root={root}", f"output={root / 'r.json'}"],
    )
    assert train_reranker.job(config) == 0
    with pytest.raises(RerankerUnusable, match="trained on databases that are asked about: dogs"):
        load_reranker(str(root / "r.json"), frozenset(("dogs", "other")))
    reranker = load_reranker(str(root / "r.json"), frozenset(("other",)))
    assert reranker.databases == ("dogs", "pets")
    ballot = polls(root)[0]
    assert reranker.select(ballot.candidates, ballot.context) in {0, 1}
    assert reranker.select(ballot.candidates[::-1], ballot.context) == reranker.select(
        ballot.candidates, ballot.context
    )
    (root / "r.json").write_text('{"format": 1, "features": ["other"]}')
    with pytest.raises(RerankerUnusable, match="train it again"):
        load_reranker(str(root / "r.json"), frozenset())


def test_the_fit_finds_the_feature_that_tells() -> None:
    """Right candidates are those whose result has more votes; nothing else differs."""
    made = []
    for size in range(2, 12):
        texts = ["a"] * size + ["b"]
        candidates = tuple(Candidate(index=i, sql=f"SELECT {t}", digest=t) for i, t in enumerate(texts))
        made.append(
            Ballot(
                db_id=str(size),
                question="q",
                candidates=candidates,
                context=Context(correct=frozenset(range(size))),
            )
        )
    reranker = fit(made, l2=0.1)
    assert all(reranker.select(ballot.candidates, ballot.context) in ballot.right for ballot in made)
    assert reranker.questions == 10
    assert reranker.weights[NAMES.index("vote share of its result")] > 0.1
    hopeless = [Ballot(db_id="d", question="q", candidates=made[0].candidates, context=Context(correct=frozenset()))]
    with pytest.raises(CandidatesUnusable, match="nothing to learn"):
        fit(hopeless, l2=1.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"index": 9, "candidates": ["a"]}', "question 9 is not in the question file"),
        ('{"candidates": ["a"]}', "an object expected"),
        ("nonsense", "line 1: an object expected"),
        ("[1]", "line 1: an object expected"),
        ('{"index": true, "candidates": ["a"]}', "line 1: an object expected"),
        ('{"index": 0, "candidates": ["a"], "logprobs": [NaN]}', "line 1: .*NaN is no JSON number"),
        ('{"index": 0, "candidates": ["a"], "logprobs": [2]}', 'line 1: "logprobs" must hold finite'),
        ('{"index": 0, "candidates": ["a"], "logprobs": ["x"]}', 'line 1: "logprobs" must hold finite'),
        ('{"index": 0, "candidates": [5]}', "line 1: at least one candidate expected, each an SQL text"),
        ('{"index": 0, "candidates": ["a"]}\n{"index": 0, "candidates": ["a"]}', "line 2: question 0 appears a second"),
        ('{"index": 0, "candidates": []}', "at least one candidate"),
        ("", "at least one line"),
    ],
)
def test_candidate_files_that_cannot_be_used(text: str, message: str, root: Path) -> None:
    (root / "bad.jsonl").write_text(text)
    config = load(
        StudyConfig,
        "selection_study",
        [f"candidates={root / 'bad.jsonl'}", "data=spider", f"data.root={root}", "output=x"],
    )
    with pytest.raises(CandidatesUnusable, match=message):
        read_candidates(config)


def test_a_file_may_hold_its_questions_and_several_are_pooled(root: Path) -> None:
    database = root / "database" / "dogs" / "dogs.sqlite"
    task = {
        "db_id": "dogs",
        "question": "Names of dogs older than 3?",
        "evidence": "",
        "gold": GOLD,
        "databases": [str(database), str(database.with_name("dogs_v1.sqlite"))],
        "denotation": "spider",
    }
    for name, candidates in (("a", [GOLD, "x"]), ("b", ["SELECT name FROM dog WHERE age > 4"])):
        (root / f"{name}.jsonl").write_text(json.dumps({"index": 7, "candidates": candidates, "task": task}) + "\n")
    files = f"candidates=[{root / 'a.jsonl'},{root / 'b.jsonl'}]"
    config = load(StudyConfig, "selection_study", [files, "output=unused"])
    (ballot,) = ballots(read_candidates(config), config)
    assert [c.sql for c in ballot.candidates] == [GOLD, "x", "SELECT name FROM dog WHERE age > 4"]
    assert ballot.right == {0}
    primary = load(StudyConfig, "selection_study", [files, "output=unused", "instances=primary"])
    (ballot,) = ballots(read_candidates(primary), primary)
    assert ballot.right == {0, 2}
    write(root)
    alone = load(StudyConfig, "selection_study", [f"candidates={root / 'c.jsonl'}", "output=unused"])
    with pytest.raises(CandidatesUnusable, match="line 1: the question is not there .* give data=spider or data=bird"):
        read_candidates(alone)
    database.unlink()
    with pytest.raises(CandidatesUnusable, match="a database expected at .*dogs.sqlite"):
        read_candidates(config)


def test_questions_of_earlier_files_are_the_same_without_their_white_space(root: Path) -> None:
    database = str(root / "database" / "dogs" / "dogs.sqlite")
    plain = {"db_id": "dogs", "question": "Names?", "evidence": "", "gold": GOLD, "databases": [database]}
    plain["denotation"] = "bird"
    spaced = {**plain, "question": "Names?\n", "evidence": " ", "gold": f"{GOLD}\n"}
    for name, task in (("a", plain), ("b", spaced), ("c", {**plain, "question": 3})):
        line = {"index": 7, "candidates": [GOLD], "task": task}
        (root / f"{name}.jsonl").write_text(json.dumps(line) + "\n")

    def read(*names: str) -> list[tuple[str, ...]]:
        files = f"candidates=[{','.join(str(root / f'{name}.jsonl') for name in names)}]"
        return [one.candidates for one in read_candidates(load(StudyConfig, "selection_study", [files, "output=x"]))]

    assert read("a", "b") == [(GOLD, GOLD)]
    with pytest.raises(CandidatesUnusable, match="line 1: question, evidence and gold must be texts"):
        read("c")


def bird_candidates(root: Path, ids: tuple[int, ...], questions: str, keys: tuple[int, ...]) -> Path:
    """A BIRD layout whose question i is asked in the words of the i-th letter, and candidates for `keys`."""
    entries = [
        {"question_id": key, "db_id": "dogs", "question": letter, "evidence": "", "SQL": GOLD}
        for key, letter in zip(ids, questions, strict=True)
    ]
    (root / "dev.json").write_text(json.dumps(entries))
    (root / "database").rename(root / "dev_databases")
    lines = [{"question_id": key, "candidates": [f"SELECT {i}"]} for i, key in enumerate(keys)]
    (root / "b.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root / "b.jsonl"


def study_config(root: Path, *files: Path) -> StudyConfig:
    named = f"[{','.join(map(str, files))}]"
    return load(StudyConfig, "selection_study", [f"candidates={named}", "data=bird", f"data.root={root}", "output=x"])


def test_a_question_asked_twice_is_studied_twice(root: Path) -> None:
    file = bird_candidates(root, (7, 8, 7), "aba", (7, 7, 8))
    found = read_candidates(study_config(root, file, file))
    assert [one.candidates for one in found] == [("SELECT 0",) * 2, ("SELECT 1",) * 2, ("SELECT 2",) * 2]
    file.write_text(file.read_text() * 2)
    with pytest.raises(CandidatesUnusable, match="line 4: question 7 appears too often"):
        read_candidates(study_config(root, file))


def test_an_id_of_different_questions_is_not_guessed(root: Path) -> None:
    file = bird_candidates(root, (7, 8, 7), "abc", (8, 7, 7))
    with pytest.raises(CandidatesUnusable, match='line 2: question_id 7 stands for different questions: give "index"'):
        read_candidates(study_config(root, file))


def test_files_that_ask_different_questions_are_not_pooled(root: Path) -> None:
    database = str(root / "database" / "dogs" / "dogs.sqlite")
    for name in ("a", "b"):
        task = {"db_id": "dogs", "question": name, "evidence": "", "gold": GOLD, "databases": [database]}
        line = {"index": 7, "candidates": ["x"], "task": {**task, "denotation": "spider"}}
        (root / f"{name}.jsonl").write_text(json.dumps(line) + "\n")
    files = f"candidates=[{root / 'a.jsonl'},{root / 'b.jsonl'}]"
    with pytest.raises(CandidatesUnusable, match="b.jsonl line 1: question 7 is another one than in the files before"):
        read_candidates(load(StudyConfig, "selection_study", [files, "output=unused"]))


def test_results_are_not_overwritten(root: Path) -> None:
    arguments = [f"candidates={root / 'none.jsonl'}", "data=spider", f"data.root={root}"]
    (root / "study.html").write_text("earlier")
    with pytest.raises(OutputTaken, match="study.html holds earlier results: choose another output, or remove it"):
        study.job(load(StudyConfig, "selection_study", [*arguments, f"output={root}"]))
    training = load(RerankerTraining, "selection_train", [*arguments, f"output={root / 'study.html'}"])
    with pytest.raises(OutputTaken, match="study.html holds earlier results"):
        train_reranker.job(training)
    with pytest.raises(OutputTaken, match="cannot be used as a folder"):
        study.job(load(StudyConfig, "selection_study", [*arguments, f"output={root / 'study.html' / 'x'}"]))
    assert (root / "study.html").read_text() == "earlier"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": [1.0]}, "12 numbers expected under each of weights, means, deviations"),
        ({"weights": [float("nan")] * 12}, "NaN is no JSON number"),
        ({"means": ["x"] * 12}, "12 numbers expected"),
        ({"deviations": [0.0] * 12}, "12 numbers expected"),
        ({"databases": "dogs"}, "does not say what it was trained on"),
    ],
)
def test_damaged_rerankers(change: dict[str, object], message: str, tmp_path: Path) -> None:
    good = {"format": 1, "features": list(NAMES), "databases": ["d"], "questions": 3}
    columns = {name: [1.0] * len(NAMES) for name in ("weights", "means", "deviations")}
    file = tmp_path / "r.json"
    file.write_text(json.dumps({**good, **columns}))
    assert load_reranker(str(file), frozenset()).questions == 3
    file.write_text(json.dumps({**good, **columns, **change}))
    with pytest.raises(RerankerUnusable, match=message):
        load_reranker(str(file), frozenset())
    file.write_text("[1]")
    with pytest.raises(RerankerUnusable, match="a file written by benchmarks.study.train_reranker expected"):
        load_reranker(str(file), frozenset())


def test_no_file_of_candidates_is_no_study() -> None:
    with pytest.raises(ConfigError, match="candidates=.*at least 1 item"):
        load(StudyConfig, "selection_study", ["candidates=[]", "output=unused"])
