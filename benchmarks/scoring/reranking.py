"""The learned voter's place in a benchmark run: its file, and the similarity that it looks at."""

from collections.abc import Callable, Sequence

from benchmarks.carriers import Question
from rewards.components.atomic import AtomicComparer
from rewards.sql.schema import read_schema
from selection.reranker import load_reranker


class Reranking:
    """A loaded reranker with one comparer a database."""

    def __init__(self, file: str, questions: Sequence[Question]) -> None:
        """Raises selection.reranker.RerankerUnusable, for a file that was trained on these databases too."""
        self.voter = load_reranker(file, frozenset(question.db_id for question in questions)).select
        self._comparers: dict[str, AtomicComparer] = {}

    def similarity(self, question: Question) -> Callable[[str, str], float]:
        """Atomic similarity of two queries on the question's database."""
        primary = question.databases[0]
        if primary not in self._comparers:
            self._comparers[primary] = AtomicComparer(read_schema(primary))
        comparer = self._comparers[primary]
        return lambda left, right: comparer.similarity(left, right).similarity
