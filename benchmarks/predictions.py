"""Reads existing predictions: Spider's one query a line, BIRD's JSON object, or JSON lines with several candidates.

The format is told from the file: a name ending in .jsonl holds JSON lines, one in .json or a first character `{` means
BIRD's object, and anything else lines of SQL. Every question needs exactly one entry; with `limit`, a file for the
whole set serves its first questions.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.carriers import Answer, Answers, BenchmarkError, Question, QuestionSet
from conf.schema.data import Denotation

BIRD_MARK = "\t----- bird -----\t"
NO_ANSWER = "no answer"
"""Stands for a missing query where there must be text: no SQL, so wrong everywhere."""
KEYS = ("index", "question_id")


def read_predictions(path: str, asked: QuestionSet) -> Answers:
    """One answer a question, in order. Raises BenchmarkError that says what was expected."""
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BenchmarkError(f"predictions={path} cannot be read ({error.strerror}); a file expected there") from error
    except UnicodeDecodeError as error:
        raise BenchmarkError(f"predictions={path}: UTF-8 text expected (byte {error.start})") from error
    if not text.strip():
        raise BenchmarkError(f"{file} is empty: predictions for {len(asked.questions)} questions expected")
    if file.suffix == ".jsonl":
        answers = _json_lines(file, text, asked)
    elif file.suffix == ".json" or text.lstrip().startswith("{"):
        answers = _bird(file, text, asked)
    else:
        answers = _lines(file, text, asked)
    return Answers(source=str(path), answers=tuple(answers))


def candidate_lines(
    key: str, questions: Sequence[Question], answers: Sequence[Answer], denotation: Denotation
) -> Iterator[dict[str, Any]]:
    """Answers with their questions as JSON lines, for `read_predictions` and selection.study; `key` is one of KEYS."""
    for question, answer in zip(questions, answers, strict=True):
        line: dict[str, Any] = {key: question.key, "candidates": answer.candidates}
        line["task"] = {
            "db_id": question.db_id,
            "question": question.question,
            "evidence": question.evidence,
            "gold": question.gold,
            "databases": [str(Path(file).resolve()) for file in question.databases],
            "denotation": denotation,
        }
        if answer.logprobs is not None:
            line["logprobs"] = answer.logprobs
        if answer.greedy is not None:
            line["greedy"] = answer.greedy
        yield line


def _lines(file: Path, text: str, asked: QuestionSet) -> list[Answer]:
    """Line i answers question i; an empty line is an empty answer, what follows a tab is ignored."""
    count = len(asked.questions)
    lines = text.removesuffix("\n").split("\n")
    while len(lines) > count and not lines[-1].strip():
        lines.pop()
    if len(lines) not in (count, asked.whole):
        raise BenchmarkError(f"{file}: {count} lines expected, one query a question; found {len(lines)}")
    return [Answer(candidates=(line.strip().partition("\t")[0],)) for line in lines[:count]]


def _bird(file: Path, text: str, asked: QuestionSet) -> list[Answer]:
    try:
        entries = json.loads(text)
    except json.JSONDecodeError as error:
        raise BenchmarkError(
            f"{file} line {error.lineno}: BIRD's JSON object expected (JSON lines need a name ending in .jsonl): "
            f"{error.msg}"
        ) from error
    if not isinstance(entries, dict):
        raise BenchmarkError(f"{file}: BIRD's JSON object expected, found a {type(entries).__name__}")
    ids = [str(question.key) for question in asked.questions]
    places = [str(question.position) for question in asked.questions]
    # The published files count questions by id in dev and by place in mini-dev.
    names = ids if entries.keys() >= set(ids) else places
    _check_keys(file, set(names), entries, asked)
    _check_databases(file, names, entries, asked.questions)
    return [Answer(candidates=(_bird_query(entries[name]),)) for name in names]


def _bird_query(value: object) -> str:
    """What stands before the mark. The official script reads anything but text as an empty prediction."""
    return value.partition(BIRD_MARK)[0] if isinstance(value, str) else ""


def _check_databases(
    file: Path, names: Sequence[str], entries: Mapping[str, object], questions: Sequence[Question]
) -> None:
    """Raises BenchmarkError when most entries name another database than their question: another set's predictions."""
    marked = [
        (value.partition(BIRD_MARK)[2].strip(), question.db_id)
        for value, question in zip(map(entries.__getitem__, names), questions, strict=True)
        if isinstance(value, str) and BIRD_MARK in value
    ]
    strange = sum(named != asked for named, asked in marked)
    if strange * 2 > len(marked):
        raise BenchmarkError(
            f"{file} answers other questions: {strange} of {len(marked)} entries name another database than theirs"
        )


def _json_lines(file: Path, text: str, asked: QuestionSet) -> list[Answer]:
    found: dict[int, Answer] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{file} line {number}"
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            raise BenchmarkError(f"{where}: a JSON object expected: {error.msg}") from error
        key = next((entry[name] for name in KEYS if name in entry), None) if isinstance(entry, dict) else None
        if not isinstance(key, int):
            raise BenchmarkError(f'{where}: an object with a number under "index" or "question_id" expected')
        if key in found:
            raise BenchmarkError(f"{where}: question {key} appears a second time")
        found[key] = _answer(where, entry)
    keys = [question.key for question in asked.questions]
    _check_keys(file, set(keys), found, asked)
    return [found[key] for key in keys]


def _answer(where: str, entry: Mapping[str, Any]) -> Answer:
    candidates, logprobs, greedy = entry.get("candidates"), entry.get("logprobs"), entry.get("greedy")
    if not isinstance(candidates, list) or not candidates or not all(isinstance(c, str) for c in candidates):
        raise BenchmarkError(f'{where}: a list of at least one SQL text expected under "candidates"')
    if logprobs is not None and not _numbers(logprobs, len(candidates)):
        raise BenchmarkError(f'{where}: "logprobs" must hold one number a candidate, {len(candidates)} in all')
    if greedy is not None and not isinstance(greedy, str):
        raise BenchmarkError(f'{where}: SQL text expected under "greedy"')
    return Answer(
        candidates=tuple(candidates),
        logprobs=tuple(map(float, logprobs)) if logprobs is not None else None,
        greedy=greedy,
        prompt_tokens=entry.get("prompt_tokens", 0),
        completion_tokens=entry.get("completion_tokens", 0),
    )


def _numbers(values: object, count: int) -> bool:
    return isinstance(values, list) and len(values) == count and all(isinstance(v, int | float) for v in values)


def _check_keys(file: Path, wanted: set[Any], found: Mapping[Any, object], asked: QuestionSet) -> None:
    unknown = found.keys() - wanted if len(asked.questions) == asked.whole else set()
    faults = [
        f"{len(keys)} {what} ({', '.join(sorted(map(str, keys), key=_numeric)[:3])}{', ...' if len(keys) > 3 else ''})"
        for what, keys in (("missing", wanted - found.keys()), ("unknown", unknown))
        if keys
    ]
    if faults:
        raise BenchmarkError(f"{file}: predictions for {len(wanted)} questions expected; {' and '.join(faults)}")


def _numeric(key: str) -> tuple[int, str]:
    return (int(key) if key.isdigit() else 0, key)
