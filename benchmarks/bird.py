"""python -m benchmarks.bird: measures predictions, a policy or a hosted model on BIRD as the official scripts do.

data.root=DIR            the published layout; data.split=dev|train|mini_dev
predictions=FILE         BIRD's JSON object, or JSON lines {"question_id", "candidates": [..]}
model.path=FOLDER        generates with vLLM: sampling.n=30 sampling.temperature=1.0 selection=value_aware
model.api=URL model.name=NAME   a hosted model that speaks the OpenAI protocol
metrics.ves=true         also times right answers (VES, R-VES)
output=DIR               receives verdicts.jsonl, scores.json, report.html, candidates.jsonl and official/
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.carriers import Question, QuestionSet
from benchmarks.folder import refuse_results
from benchmarks.official import write_bird
from benchmarks.questions.bird import load
from benchmarks.run import run
from benchmarks.scoring.bird import BirdJudge
from benchmarks.scoring.runner import Runner
from benchmarks.scoring.timing import Stopwatch
from benchmarks.scoring.voting import Voting
from benchmarks.sources import answering
from conf.cli import run_entrypoint
from conf.schema.benchmark import BirdBenchmark
from conf.schema.data import Denotation


class Bird:
    """BIRD for the common run."""

    name: Denotation = "bird"
    levels: tuple[str, ...] = ("simple", "moderate", "challenging")

    def __init__(self, config: BirdBenchmark) -> None:
        self._config = config
        self.metrics: tuple[str, ...] = ("ex", "soft_f1", "soft_f1_unordered", "ex_corrected")
        if config.metrics.ves:
            self.metrics += ("ves", "r_ves")

    @contextmanager
    def judging(self, questions: QuestionSet) -> Iterator[BirdJudge]:
        voting = Voting.configured(self._config, "bird", questions.questions)
        with Runner(self._config.execution, "strict") as runner:
            if not self._config.metrics.ves:
                yield BirdJudge(runner, voting)
                return
            with Stopwatch(self._config.execution, self._config.metrics.ves_repeats) as stopwatch:
                yield BirdJudge(runner, voting, stopwatch)

    def write_official(self, output: Path, questions: Sequence[Question], chosen: Sequence[str]) -> None:
        write_bird(output, questions, chosen)


def job(config: BirdBenchmark) -> int:
    """Runs one configuration. Raises BenchmarkError."""
    refuse_results(config.output, generates=config.predictions is None)
    questions = load(config.data, config.limit)
    return run(config, Bird(config), questions, answering(config, questions, "bird"))


if __name__ == "__main__":
    sys.exit(run_entrypoint(BirdBenchmark, "benchmark_bird", job, __doc__ or "", sys.argv[1:]))
