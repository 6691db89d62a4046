"""Spider: execution match over all instances, with and without DISTINCT, exact set match, hardness.

`exec` is the official verdict; `exec_corrected` beside it leaves out what is plainly a bug of the script: the sorting
of cells by text, the replacement of a lower-case `value` in predictions, and row order required because a subquery
orders.
"""

from collections.abc import Iterator, Mapping, Sequence

from benchmarks.carriers import Answer, Judged, Question, QuestionSet
from benchmarks.metrics.spider.exact import SameColumn, exact_match, foreign_key_families
from benchmarks.metrics.spider.hardness import hardness
from benchmarks.metrics.spider.parser import Schema, parse
from benchmarks.metrics.spider.results import results_match, results_match_corrected
from benchmarks.metrics.spider.text import executable, order_matters, plug_placeholder
from benchmarks.metrics.spider.tree import Query, Refused
from benchmarks.official import one_line
from benchmarks.scoring.blank import as_official
from benchmarks.scoring.exhibit import table
from benchmarks.scoring.runner import Call, Known, Runner
from benchmarks.scoring.schemas import read_schemas
from benchmarks.scoring.voting import Poll, Voting
from rewards.carriers import Execution
from rewards.sql.parse import has_top_level_order_by

Rights = Mapping[str, bool | None]
"""Query -> official execution verdict."""


class SpiderJudge:
    """Judges blocks of questions; schemas are read once."""

    def __init__(self, questions: QuestionSet, runner: Runner, voting: Voting) -> None:
        """Raises BenchmarkError when a schema cannot be read."""
        self._runner = runner
        self._voting = voting
        primaries = {q.db_id: q.databases[0] for q in questions.questions}
        self._schemas: Mapping[str, Schema] = read_schemas(primaries, runner)
        self._same: dict[str, SameColumn] = {
            db_id: foreign_key_families(questions.schemas[db_id]) if db_id in questions.schemas else {}
            for db_id in primaries
        }

    def judge(self, questions: Sequence[Question], answers: Sequence[Answer]) -> Iterator[Judged]:
        """One judgement a question, in order."""
        known = Known()
        pairs = [(q, _in_lines(a)) for q, a in zip(questions, answers, strict=True)]
        self._runner.run((call for q, a in pairs for call in self._candidate_calls(q, a)), known)
        rights = [{sql: _match(q, sql, known, keep_distinct=False) for sql in a.texts} for q, a in pairs]
        polls = [self._poll(q, a, right, known) for (q, a), right in zip(pairs, rights, strict=True)]
        chosen = [answer.text(poll.chosen) for (_, answer), poll in zip(pairs, polls, strict=True)]
        self._runner.run(
            (call for (q, _), sql in zip(pairs, chosen, strict=True) for call in _all_calls(q, sql)), known
        )
        for (question, answer), right, poll, sql in zip(pairs, rights, polls, chosen, strict=True):
            yield self._judged(question, answer, right, poll, sql, known)

    def _candidate_calls(self, question: Question, answer: Answer) -> Iterator[Call]:
        for sql in answer.texts:
            yield from _official_calls(question, sql, keep_distinct=False)
            yield from ((database, sql) for database in self._seen(question))

    def _poll(self, question: Question, answer: Answer, right: Rights, known: Known) -> Poll:
        primary, *others = (
            {sql: known[database, sql] for sql in answer.candidates} for database in self._seen(question)
        )
        return self._voting.poll(question, answer, primary, [bool(right[sql]) for sql in answer.candidates], others)

    def _seen(self, question: Question) -> Sequence[str]:
        """Instances that votes are taken from."""
        return question.databases if self._voting.looks_at_all_instances else question.databases[:1]

    def _lost_votes(self, question: Question, answer: Answer, known: Known) -> bool:
        asked = (known[database, sql] for database in self._seen(question) for sql in answer.texts)
        return any(execution.lost for execution in asked)

    def _judged(self, question: Question, answer: Answer, right: Rights, poll: Poll, sql: str, known: Known) -> Judged:
        gold, gold_error = self._parse_gold(question)
        level = hardness(gold) if gold else "unknown"
        kept = _match(question, sql, known, keep_distinct=True)
        execution, error = right[sql], _error(question, sql, known)
        gold_error = gold_error or _gold_error(question, known)
        verdict = {
            "index": question.key,
            "db_id": question.db_id,
            "hardness": level,
            "exec": _number(execution),
            "exact": int(gold is not None and self._exact(question, gold, sql)),
            "exec_keep_distinct": _number(kept),
            "error": f"gold: {gold_error}" if gold_error else error,
            "exec_corrected": _number(_match_corrected(question, sql, known)),
            "chosen": poll.chosen,
            "sql": sql,
            "question": question.question,
        }
        failed = [known[question.databases[0], c.sql].error_kind or "unscorable" for c in poll.candidates if c.failed]
        exhibit = {} if execution else _exhibit(question, sql, known)
        rights = [right[text] for text in answer.candidates]
        return Judged(
            verdict=verdict,
            level=level,
            rights=tuple(one for one in rights if one is not None),
            greedy_right=None if answer.greedy is None else right[answer.greedy],
            voters={name: bool(right[answer.text(choice)]) for name, choice in poll.choices.items()},
            error_kinds=tuple(failed),
            gold_error=gold_error,
            unscorable=execution is None,
            lost=rights.count(None),
            incomplete=None in right.values() or self._lost_votes(question, answer, known),
            exhibit=exhibit,
        )

    def _parse_gold(self, question: Question) -> tuple[Query | None, str | None]:
        try:
            return parse(question.gold, self._schemas[question.db_id]), None
        except Refused as error:
            return None, f"the official parser refuses the gold query: {error}"

    def _exact(self, question: Question, gold: Query, sql: str) -> bool:
        try:
            predicted = parse(plug_placeholder(sql), self._schemas[question.db_id])
        except Refused:
            return False
        return exact_match(gold, predicted, self._same[question.db_id])


def _in_lines(answer: Answer) -> Answer:
    """The answer as the official script would read it from a file: one line a query."""
    return Answer(
        candidates=tuple(one_line(sql) for sql in answer.candidates),
        logprobs=answer.logprobs,
        greedy=None if answer.greedy is None else one_line(answer.greedy),
    )


def _official_calls(question: Question, sql: str, *, keep_distinct: bool) -> Iterator[Call]:
    for text in (question.gold, plug_placeholder(sql)):
        for database in question.databases:
            yield (database, executable(text, keep_distinct=keep_distinct))


def _all_calls(question: Question, sql: str) -> Iterator[Call]:
    """What the remaining columns of the chosen query's verdict need."""
    yield from _official_calls(question, sql, keep_distinct=True)
    for database in question.databases:
        yield (database, executable(sql, keep_distinct=False))


def _pairs(question: Question, predicted: str, gold: str, known: Known) -> list[tuple[Execution, Execution]]:
    return [(known[database, gold], known[database, predicted]) for database in question.databases]


def _unscorable(pairs: Sequence[tuple[Execution, Execution]]) -> bool:
    return any(execution.lost for pair in pairs for execution in pair)


def _match(question: Question, sql: str, known: Known, *, keep_distinct: bool) -> bool | None:
    """Official execution match on all instances; None when one of them could not be asked."""
    gold = executable(question.gold, keep_distinct=keep_distinct)
    text = executable(plug_placeholder(sql), keep_distinct=keep_distinct)
    pairs = _pairs(question, text, gold, known)
    if _unscorable(pairs):
        return None
    return all(results_match(expected, as_official(text, got), ordered=order_matters(gold)) for expected, got in pairs)


def _match_corrected(question: Question, sql: str, known: Known) -> bool | None:
    gold = executable(question.gold, keep_distinct=False)
    pairs = _pairs(question, executable(sql, keep_distinct=False), gold, known)
    if _unscorable(pairs):
        return None
    ordered = has_top_level_order_by(gold)
    return all(results_match_corrected(expected, got, ordered=ordered) for expected, got in pairs)


def _error(question: Question, sql: str, known: Known) -> str | None:
    """Why the chosen query did not run on some instance."""
    text = executable(plug_placeholder(sql), keep_distinct=False)
    return next((known[d, text].error for d in question.databases if known[d, text].status != "ok"), None)


def _gold_error(question: Question, known: Known) -> str | None:
    text = executable(question.gold, keep_distinct=False)
    return next((known[d, text].error for d in question.databases if known[d, text].status != "ok"), None)


def _number(verdict: bool | None) -> int | None:
    return None if verdict is None else int(verdict)


def _exhibit(question: Question, sql: str, known: Known) -> dict[str, object]:
    """Both results on the instance where they differ, the primary one if possible."""
    gold = executable(question.gold, keep_distinct=False)
    predicted = executable(plug_placeholder(sql), keep_distinct=False)
    ordered = order_matters(gold)
    database = next(
        (d for d in question.databases if not results_match(known[d, gold], known[d, predicted], ordered=ordered)),
        question.databases[0],
    )
    return {
        "question": question.question,
        "gold": question.gold,
        "instance": question.databases.index(database),
        "gold_result": table(known[database, gold]),
        "result": table(known[database, predicted]),
    }
