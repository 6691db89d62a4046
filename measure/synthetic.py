"""python -m measure.synthetic: candidate files without a model, to try selection and to measure speed.

  data.root=DIR and all settings of benchmarks.spider or benchmarks.bird; sampling.n candidates a question
  predictions=FILE         recorded predictions, mixed in (any format)
  output=DIR               receives candidates.jsonl

Each question draws its own share of right answers. Candidates are the gold query, the recorded prediction, and a few
neighbours of the gold (rewards/instances/mutants) of which some are much more frequent than others, as with a model
that has favourite mistakes; log-probabilities carry a weak signal. Numbers on such files say how voters and machines
behave, and nothing about any model.
"""

import json
import random
import sys
from collections.abc import Sequence

from benchmarks.carriers import Answer, BenchmarkError, Question, QuestionSet
from benchmarks.predictions import read_predictions
from benchmarks.questions import bird, spider
from conf.cli import run_entrypoint
from conf.output import new_output
from conf.schema.benchmark import BenchmarkConfig, BirdBenchmark, SpiderBenchmark
from rewards.instances.mutants import mutants
from rewards.sql.parse import ParseFailure
from rewards.sql.schema import DatabaseSchema, read_schema

FAVOURITES = 12
"""Different mistakes of one question."""
UNSOLVED = 0.25
"""Share of questions whose gold query is never a candidate."""
RIGHT = (1.0, 1.0)
"""Beta distribution of the share of gold queries among the candidates of the others."""
RECORDED = 0.15
"""Chance that a candidate is the recorded prediction."""


def candidates(
    question: Question, recorded: str, schema: DatabaseSchema, n: int, draw: random.Random
) -> tuple[list[str], list[float]]:
    """`n` queries and their sequence log-probabilities."""
    try:
        wrong = [mutant.sql for mutant in mutants(question.gold, schema)]
    except ParseFailure:
        wrong = []
    wrong = draw.sample(wrong, min(FAVOURITES, len(wrong))) or [recorded]
    weights = [1 / (rank + 1) for rank in range(len(wrong))]
    share = 0.0 if draw.random() < UNSOLVED else draw.betavariate(*RIGHT)
    texts, logprobs = [], []
    for _ in range(n):
        if draw.random() < RECORDED:
            text, centre = recorded, -7.0
        elif draw.random() < share:
            text, centre = question.gold, -6.0
        else:
            text, centre = draw.choices(wrong, weights)[0], -8.0
        texts.append(text)
        logprobs.append(round(min(-0.01, draw.gauss(centre, 3.0)), 4))
    return texts, logprobs


def write(config: BenchmarkConfig, questions: QuestionSet, key_name: str) -> int:
    """Writes candidates.jsonl; returns the exit code. Raises BenchmarkError and OutputTaken."""
    if config.predictions is None:
        raise BenchmarkError("predictions=FILE expected: recorded predictions to mix in")
    folder = new_output(config.output, "candidates.jsonl")
    recorded: Sequence[Answer] = read_predictions(config.predictions, questions).answers
    draw = random.Random(config.seed)
    schemas = {file: read_schema(file) for file in {q.databases[0] for q in questions.questions}}
    lines = []
    for question, answer in zip(questions.questions, recorded, strict=True):
        schema = schemas[question.databases[0]]
        texts, logprobs = candidates(question, answer.candidates[0], schema, config.sampling.n, draw)
        lines.append(json.dumps({key_name: question.key, "candidates": texts, "logprobs": logprobs}) + "\n")
    (folder / "candidates.jsonl").write_text("".join(lines), encoding="utf-8")
    sys.stdout.write(f"{len(lines)} questions with {config.sampling.n} synthetic candidates each: {folder}\n")
    return 0


def main(arguments: Sequence[str]) -> int:
    """The first argument says whose questions: spider or bird."""
    about = __doc__ or ""
    if arguments[:1] == ["bird"]:
        return run_entrypoint(
            *(BirdBenchmark, "benchmark_bird"),
            lambda config: write(config, bird.load(config.data, config.limit), "question_id"),
            *(about, arguments[1:]),
        )
    return run_entrypoint(
        *(SpiderBenchmark, "benchmark_spider"),
        lambda config: write(config, spider.load(config.data, config.limit), "index"),
        *(about, arguments[1:] if arguments[:1] == ["spider"] else arguments),
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
