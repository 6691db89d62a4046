"""BIRD: EX, Soft-F1 as published and without its dependence on row order, and on request VES and R-VES."""

from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.carriers import Answer, Judged, Question
from benchmarks.metrics.bird.efficiency import Efficiency
from benchmarks.metrics.bird.execution import execution_match
from benchmarks.metrics.bird.soft_f1 import soft_f1, soft_f1_unordered
from benchmarks.scoring.blank import as_official
from benchmarks.scoring.exhibit import table
from benchmarks.scoring.runner import Known, Runner
from benchmarks.scoring.timing import Stopwatch
from benchmarks.scoring.voting import Poll, Voting
from rewards.carriers import Execution


class BirdJudge:
    """Judges blocks of questions; with a stopwatch it also times right answers."""

    def __init__(self, runner: Runner, voting: Voting, stopwatch: Stopwatch | None = None) -> None:
        self._runner = runner
        self._voting = voting
        self._stopwatch = stopwatch

    def judge(self, questions: Sequence[Question], answers: Sequence[Answer]) -> Iterator[Judged]:
        """One judgement a question, in order."""
        known = Known()
        pairs = list(zip(questions, answers, strict=True))
        self._runner.run(
            ((q.databases[0], sql) for q, a in pairs for sql in (q.gold, *a.texts)),
            known,
        )
        for question, answer in pairs:
            yield self._judged(question, answer, known)

    def _judged(self, question: Question, answer: Answer, known: Known) -> Judged:
        database = question.databases[0]
        gold = known[database, question.gold]
        executions = {sql: known[database, sql] for sql in answer.texts}
        right = {sql: _match(gold, sql, execution) for sql, execution in executions.items()}
        rights = [right[sql] for sql in answer.candidates]
        poll = self._voting.poll(question, answer, executions, [bool(one) for one in rights])
        sql = answer.text(poll.chosen)
        lost = right[sql] is None
        return Judged(
            verdict=self._verdict(question, poll, sql, gold, executions[sql], lost),
            level=question.difficulty or "unknown",
            rights=tuple(one for one in rights if one is not None),
            greedy_right=None if answer.greedy is None else right[answer.greedy],
            voters={name: bool(right[answer.text(choice)]) for name, choice in poll.choices.items()},
            error_kinds=tuple(executions[c.sql].error_kind or "unscorable" for c in poll.candidates if c.failed),
            gold_error=None if gold.status == "ok" else gold.error,
            unscorable=lost,
            lost=rights.count(None),
            incomplete=None in right.values(),
            exhibit={} if right[sql] else _exhibit(question, gold, executions[sql]),
        )

    def _verdict(
        self, question: Question, poll: Poll, sql: str, gold: Execution, predicted: Execution, lost: bool
    ) -> dict[str, Any]:
        official = as_official(sql, predicted)
        both = gold.status == official.status == "ok"
        ex = None if lost else int(execution_match(gold, official))
        error = predicted.error if gold.status == "ok" else f"gold: {gold.error}"
        verdict: dict[str, Any] = {
            "question_id": question.key,
            "db_id": question.db_id,
            "difficulty": question.difficulty,
            "ex": ex,
            "soft_f1": None if lost else round(soft_f1(gold.rows, official.rows), 6) if both else 0.0,
            "soft_f1_unordered": None
            if lost
            else round(soft_f1_unordered(gold.rows, predicted.rows), 6)
            if both
            else 0.0,
            "error": error,
            "ex_corrected": None if lost else int(execution_match(gold, predicted)),
        }
        if self._stopwatch is not None:
            timed = self._stopwatch.compare(question.databases[0], question.gold, sql) if ex else None
            verdict |= _efficiency_fields(timed)
        return verdict | {"chosen": poll.chosen, "sql": sql, "question": question.question}


def _match(gold: Execution, sql: str, predicted: Execution) -> bool | None:
    """Official execution match; None when one of the two was lost."""
    if gold.lost or predicted.lost:
        return None
    return execution_match(gold, as_official(sql, predicted))


def _efficiency_fields(timed: Efficiency | None) -> dict[str, float]:
    """A wrong answer has no efficiency: 0 in both scores."""
    if timed is None:
        return {"ves": 0.0, "r_ves": 0.0, "time_ratio": 0.0, "time_ratio_spread": 0.0}
    values = {
        "ves": timed.ves,
        "r_ves": timed.r_ves,
        "time_ratio": timed.ratio,
        "time_ratio_spread": timed.spread,
    }
    return {name: round(value, 6) for name, value in values.items()}


def _exhibit(question: Question, gold: Execution, predicted: Execution) -> dict[str, Any]:
    return {
        "question": question.question,
        "evidence": question.evidence,
        "gold": question.gold,
        "instance": 0,
        "gold_result": table(gold),
        "result": table(predicted),
    }
