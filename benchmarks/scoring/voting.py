"""Lets every voter choose among one question's executed candidates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.carriers import Answer, Question
from conf.schema.benchmark import VoterName
from conf.schema.data import Denotation
from rewards.carriers import Execution
from rewards.sql.denotation import digest, is_trivial
from rewards.sql.parse import has_top_level_order_by
from selection.builder import VOTERS
from selection.candidate import Candidate, Context, Voter

NEEDS_LOGPROBS = frozenset(("log_probability", "confidence_weighted"))


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

    def __init__(self, selection: VoterName, denotation: Denotation, reranker: Voter | None = None) -> None:
        self._selection = selection
        self._denotation = denotation
        self._voters = {**VOTERS, "reranker": reranker} if reranker else VOTERS

    def candidates(self, answer: Answer, executions: Mapping[str, Execution]) -> tuple[Candidate, ...]:
        """The sampled candidates after execution of their texts on the primary instance."""
        digests = {sql: self._digest(sql, executions[sql]) for sql in set(answer.candidates)}
        return tuple(
            Candidate(
                index=index,
                sql=sql,
                digest=digests[sql],
                trivial=digests[sql] is not None and is_trivial(executions[sql]),
                failed=digests[sql] is None,
                logprob=answer.logprobs[index] if answer.logprobs else None,
            )
            for index, sql in enumerate(answer.candidates)
        )

    def poll(
        self, question: Question, answer: Answer, executions: Mapping[str, Execution], rights: Sequence[bool]
    ) -> Poll:
        """Raises selection.candidate.NoCandidates when the configured voter lacks an input."""
        candidates = self.candidates(answer, executions)
        context = Context(
            question=question.question,
            evidence=question.evidence,
            rows={c.index: executions[c.sql].rows for c in candidates if not c.failed},
            correct=frozenset(index for index, right in enumerate(rights) if right),
            greedy=len(candidates) if answer.greedy is not None else None,
        )
        names = [name for name in self._voters if name == self._selection or self._has_input(name, answer)]
        choices = {name: self._voters[name](candidates, context) for name in names}
        return Poll(candidates=candidates, chosen=choices[self._selection], choices=choices)

    def _has_input(self, name: str, answer: Answer) -> bool:
        if name == "greedy":
            return answer.greedy is not None
        return answer.logprobs is not None or name not in NEEDS_LOGPROBS

    def _digest(self, sql: str, execution: Execution) -> str | None:
        if execution.status != "ok":
            return None
        return digest(execution, policy=self._denotation, ordered=has_top_level_order_by(sql))
