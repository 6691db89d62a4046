"""Lets every voter choose among one question's executed candidates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.carriers import Answer, BenchmarkError, Question
from conf.schema.benchmark import BenchmarkConfig, VoterName
from conf.schema.data import Denotation
from rewards.carriers import Execution
from selection.candidate import Candidate, Context, NoCandidates, Voter, executed_candidates, instance_digests
from selection.voters import NEEDS_LOGPROBS, VOTERS

if TYPE_CHECKING:  # it loads pandas, which scoring a file without a reranker must not wait for
    from benchmarks.scoring.reranking import Reranking


@dataclass(frozen=True, kw_only=True, slots=True)
class Poll:
    """Every voter's choice for one question."""

    candidates: tuple[Candidate, ...]
    chosen: int
    """Index of the candidate that the configured voter answers with; len(candidates) stands for the greedy one."""
    choices: Mapping[str, int]
    """Voter -> index; voters whose input is missing are absent."""


class Voting:
    """The configured voter and, for the record, all others."""

    def __init__(self, selection: VoterName, denotation: Denotation, reranking: "Reranking | None" = None) -> None:
        self._selection = selection
        self._denotation = denotation
        self._reranking = reranking
        self._voters: dict[str, Voter] = {**VOTERS, "reranker": reranking.voter} if reranking else VOTERS

    @property
    def looks_at_all_instances(self) -> bool:
        """Whether `poll` wants the candidates executed on every instance, and not on the primary one alone."""
        return self._reranking is not None

    @classmethod
    def configured(cls, config: BenchmarkConfig, denotation: Denotation, questions: Sequence[Question]) -> "Voting":
        """With the reranker where the configuration names one. Raises selection.reranker.RerankerUnusable."""
        if config.reranker is None:
            return cls(config.selection, denotation)
        from benchmarks.scoring.reranking import Reranking

        return cls(config.selection, denotation, Reranking(config.reranker, questions))

    def candidates(
        self, question: Question, answer: Answer, executions: Mapping[str, Execution]
    ) -> tuple[Candidate, ...]:
        """The sampled candidates after execution of their texts on the primary instance."""
        if len(answer.candidates) == 1:  # nothing to vote on, so nothing to digest
            sql = answer.candidates[0]
            return (Candidate(index=0, sql=sql, digest=None, failed=executions[sql].status != "ok"),)
        return executed_candidates(
            answer.candidates,
            executions,
            denotation=self._denotation,
            database=question.databases[0],
            logprobs=answer.logprobs,
        )

    def poll(
        self,
        question: Question,
        answer: Answer,
        executions: Mapping[str, Execution],
        rights: Sequence[bool],
        others: Sequence[Mapping[str, Execution]] = (),
    ) -> Poll:
        """`executions` are the candidates' on the primary instance, `others` on the further ones.

        Raises BenchmarkError when the configured voter lacks an input.
        """
        candidates = self.candidates(question, answer, executions)
        names = [name for name in self._voters if name == self._selection or self._has_input(name, answer)]
        if len(candidates) == 1 and answer.greedy is None and self._selection != "greedy":
            return Poll(candidates=candidates, chosen=0, choices=dict.fromkeys(names, 0))
        context = Context(
            question=question.question,
            evidence=question.evidence,
            rows={c.index: executions[c.sql].rows for c in candidates if not c.failed},
            correct=frozenset(index for index, right in enumerate(rights) if right),
            greedy=len(candidates) if answer.greedy is not None else None,
            similarity=self._reranking.similarity(question) if self._reranking else None,
            instance_digests=self._instance_digests(question, candidates, others),
        )
        try:
            choices = {name: self._voters[name](candidates, context) for name in names}
        except NoCandidates as error:
            raise BenchmarkError(f"question {question.key}, selection={self._selection}: {error}") from error
        return Poll(candidates=candidates, chosen=choices[self._selection], choices=choices)

    def _has_input(self, name: str, answer: Answer) -> bool:
        if name == "greedy":
            return answer.greedy is not None
        return answer.logprobs is not None or name not in NEEDS_LOGPROBS

    def _instance_digests(
        self, question: Question, candidates: Sequence[Candidate], others: Sequence[Mapping[str, Execution]]
    ) -> dict[int, str]:
        if self._reranking is None:
            return {}
        further = list(zip(question.databases[1:], others, strict=False))  # they are not always executed
        return instance_digests(candidates, further, denotation=self._denotation)
