"""Every recorded prediction is judged as the official scripts judged it, over the whole files."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.carriers import Judged, QuestionSet
from benchmarks.predictions import read_predictions
from benchmarks.questions import bird, spider
from benchmarks.scoring.bird import BirdJudge
from benchmarks.scoring.runner import Runner
from benchmarks.scoring.spider import SpiderJudge
from benchmarks.scoring.voting import Voting
from conf.schema.benchmark import BenchmarkExecution, BirdQuestions, SpiderQuestions

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
CLOCK_DEPENDENT = {194, 898, 1118, 1121, 1156, 1161, 1211, 1227, 1229, 1232, 1235, 1236, 1239, 1243, 1257, 1260}
"""BIRD golds that read the clock: their official verdicts hold for the day on which they were made."""

pytestmark = pytest.mark.skipif(not (DATA / "verdicts").is_dir(), reason="the recorded verdicts are not here")


@pytest.fixture(scope="module")
def spider_questions() -> QuestionSet:
    return spider.load(SpiderQuestions(root=str(DATA / "spider")), None)


@pytest.fixture(scope="module")
def bird_questions() -> QuestionSet:
    return bird.load(BirdQuestions(root=str(DATA / "bird")), None)


@pytest.fixture(scope="module")
def spider_judge(spider_questions: QuestionSet) -> Iterator[SpiderJudge]:
    with Runner(BenchmarkExecution(executors=2), "ignore") as runner:
        yield SpiderJudge(spider_questions, runner, Voting("value_aware", "spider"))


@pytest.fixture(scope="module")
def bird_judge() -> Iterator[BirdJudge]:
    with Runner(BenchmarkExecution(executors=2), "strict") as runner:
        yield BirdJudge(runner, Voting("value_aware", "bird"))


def verdicts(name: str) -> list[dict[str, object]]:
    return json.loads((DATA / "verdicts" / f"{name}.json").read_text())


def scored(judge: SpiderJudge | BirdJudge, questions: QuestionSet, file: str) -> list[Judged]:
    answers = read_predictions(str(DATA / "predictions" / file), questions)
    return list(judge.judge(questions.questions, answers.answers))


@pytest.mark.parametrize("model", ["codes-3b", "codes-15b"])
def test_spider(model: str, spider_judge: SpiderJudge, spider_questions: QuestionSet) -> None:
    official = verdicts(f"spider-{model}")
    ours = [j.verdict for j in scored(spider_judge, spider_questions, f"spider-{model}.txt")]
    assert len(ours) == len(official) == 1034
    for field in ("hardness", "exec", "exec_keep_distinct", "exact"):
        assert [v["index"] for v, o in zip(ours, official, strict=True) if v[field] != o[field]] == [], field


@pytest.mark.parametrize("model", ["codes-3b", "codes-15b"])
def test_bird(model: str, bird_judge: BirdJudge, bird_questions: QuestionSet) -> None:
    official = verdicts(f"bird-{model}")
    ours = [j.verdict for j in scored(bird_judge, bird_questions, f"bird-{model}.json")]
    pairs = [(v, o) for v, o in zip(ours, official, strict=True) if v["question_id"] not in CLOCK_DEPENDENT]
    assert len(pairs) == 1534 - len(CLOCK_DEPENDENT)
    assert [v["question_id"] for v, o in pairs if v["ex"] != o["ex"]] == []
    assert [v["question_id"] for v, o in pairs if abs(v["soft_f1"] - o["soft_f1"]) > 1e-6] == []
    assert all(v["soft_f1_unordered"] >= v["soft_f1"] for v, _ in pairs if v["ex"])
