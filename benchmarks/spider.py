"""python -m benchmarks.spider: measures predictions, a policy or a hosted model on Spider as the official scripts do.

data.root=DIR            the published layout; data.split=dev|test|train
data.databases=FOLDER    other databases than the split's: the test suite's
predictions=FILE         one SQL a line, or JSON lines {"index", "candidates": [..]}
model.path=FOLDER        generates with vLLM: sampling.n=30 sampling.temperature=1.0 selection=value_aware
model.api=URL model.name=NAME   a hosted model that speaks the OpenAI protocol
output=DIR               receives verdicts.jsonl, scores.json, report.html, candidates.jsonl and official/
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.carriers import Question, QuestionSet
from benchmarks.folder import refuse_results
from benchmarks.metrics.spider.hardness import LEVELS
from benchmarks.official import write_spider
from benchmarks.questions.spider import load
from benchmarks.run import run
from benchmarks.scoring.runner import Runner
from benchmarks.scoring.spider import SpiderJudge
from benchmarks.scoring.voting import Voting
from benchmarks.sources import answering
from conf.cli import run_entrypoint
from conf.schema.benchmark import DemoBenchmark, SpiderBenchmark
from conf.schema.data import Denotation


class Spider:
    """Spider for the common run."""

    name: Denotation = "spider"
    metrics: tuple[str, ...] = ("exec", "exact", "exec_keep_distinct", "exec_corrected")
    levels: tuple[str, ...] = LEVELS

    def __init__(self, config: SpiderBenchmark | DemoBenchmark) -> None:
        self._config = config

    @contextmanager
    def judging(self, questions: QuestionSet) -> Iterator[SpiderJudge]:
        with Runner(self._config.execution, "ignore") as runner:
            yield SpiderJudge(questions, runner, Voting.configured(self._config, "spider", questions.questions))

    def write_official(self, output: Path, questions: Sequence[Question], chosen: Sequence[str]) -> None:
        write_spider(output, questions, chosen)


def job(config: SpiderBenchmark | DemoBenchmark) -> int:
    """Runs one configuration. Raises BenchmarkError."""
    refuse_results(config.output, generates=config.predictions is None)
    questions = load(config.data, config.limit)
    return run(config, Spider(config), questions, answering(config, questions, "spider"))


if __name__ == "__main__":
    sys.exit(run_entrypoint(SpiderBenchmark, "benchmark_spider", job, __doc__ or "", sys.argv[1:]))
