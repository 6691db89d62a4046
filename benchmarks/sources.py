"""Where answers come from: a file, a policy, a hosted model. One line here for each."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from benchmarks.carriers import Answers, BenchmarkError, QuestionSet
from benchmarks.predictions import read_predictions
from conf.schema.benchmark import BenchmarkConfig
from rewards.sql.schema import DatabaseUnreadable
from selection.reranker import load_reranker


def answering(
    config: BenchmarkConfig, questions: QuestionSet, denotation: Literal["spider", "bird"]
) -> Callable[[Path], Answers]:
    """The function that answers all questions; it may keep its progress in the folder that it is given.

    The generating sources are imported only when they are asked for: scoring a file must not wait for an engine's
    imports. A reranker that cannot be used is refused here, before anything is generated. Raises
    selection.reranker.RerankerUnusable.
    """
    if config.reranker is not None:
        load_reranker(config.reranker, frozenset(question.db_id for question in questions.questions))

    def from_file(_: Path) -> Answers:
        assert config.predictions is not None
        return read_predictions(config.predictions, questions)

    def from_policy(output: Path) -> Answers:
        from benchmarks.generation.policy import generate

        return generate(config, questions.questions, denotation, output)

    def from_hosted(output: Path) -> Answers:
        from benchmarks.generation.hosted import ask

        return ask(config, questions.questions, denotation, output)

    def generated(output: Path) -> Answers:
        try:
            return from_policy(output) if config.model.path is not None else from_hosted(output)
        except DatabaseUnreadable as error:
            raise BenchmarkError(str(error)) from error

    return from_file if config.predictions is not None else generated
