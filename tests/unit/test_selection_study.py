"""Candidate files, ballots, features, the study and the reranker, on a small database."""

import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from conf.load import load
from conf.schema.selection import RerankerTraining, StudyConfig
from selection import study, train_reranker
from selection.ballots import Ballot, ballots
from selection.candidate import Candidate, Context
from selection.features import NAMES, features
from selection.questions import CandidatesUnusable, read_candidates
from selection.reranker import RerankerUnusable, load_reranker
from selection.train_reranker import fit
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
    monkeypatch.setattr("selection.ballots.ExecutorPool", lambda count: pool)
    assert [ballot.db_id for ballot in polls(root)] == ["pets"]


def test_right_means_right_on_every_instance_asked_for(root: Path) -> None:
    # On the primary instance nobody is 4 years old, so "> 4" looks right there.
    assert polls(root)[0].right == {0, 1}
    assert polls(root, "instances=primary")[0].right == {0, 1, 2}
    assert [c.failed for c in polls(root)[0].candidates] == [False, False, False, False, True]


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
    assert curves["oracle"][-1] == [1.0, 1.0, 1.0]
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
