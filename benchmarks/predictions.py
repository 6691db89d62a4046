"""Reads existing predictions: Spider's one query a line, BIRD's JSON object, or JSON lines with several candidates.

The format is told from the file: a name ending in .jsonl holds JSON lines, one in .json or a first character `{` means
BIRD's object, and anything else lines of SQL. Every question needs exactly one entry; with `limit`, a file for the
whole set serves its first questions. benchmarks/pairing.py says which entry answers which question.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.carriers import Answer, Answers, BenchmarkError, Question, QuestionSet
from benchmarks.pairing import BIRD_MARK, Line, line_answers, object_names, strange_databases
from conf.schema.data import Denotation
from rewards.cases import load_json
from selection.candidate import logprobs_fault

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
    """Answers with their questions as JSON lines, for `read_predictions` and benchmarks.study; `key` is one of KEYS."""
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
        entries = json.loads(text, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        raise BenchmarkError(
            f"{file} line {error.lineno}: BIRD's JSON object expected (JSON lines need a name ending in .jsonl): "
            f"{error.msg}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise BenchmarkError(f"{file}: BIRD's JSON object expected: {error}") from error
    if not isinstance(entries, dict):
        raise BenchmarkError(f"{file}: BIRD's JSON object expected, found a {type(entries).__name__}")
    names = object_names(file, entries, asked)
    strange, marked = strange_databases(entries, names, asked)
    if strange * 2 > marked:
        raise BenchmarkError(
            f"{file} answers other questions: {strange} of {marked} entries name another database than theirs"
        )
    return [Answer(candidates=(_bird_query(entries[name]),)) for name in names]


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object whose names are all different. Raises ValueError."""
    found: dict[str, object] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f'"{name}" appears a second time')
        found[name] = value
    return found


def _bird_query(value: object) -> str:
    """What stands before the mark. The official script reads anything but text as an empty prediction."""
    return value.partition(BIRD_MARK)[0] if isinstance(value, str) else ""


def _json_lines(file: Path, text: str, asked: QuestionSet) -> list[Answer]:
    lines = (
        _line(f"{file} line {number}", line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()
    )
    return line_answers(file, list(lines), asked)


def _line(where: str, line: str) -> Line:
    try:
        entry = load_json(line.encode())
    except json.JSONDecodeError as error:
        raise BenchmarkError(f"{where}: a JSON object expected: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise BenchmarkError(f"{where}: a JSON object expected: {error}") from error
    place, key = (entry.get(name) for name in KEYS) if isinstance(entry, dict) else (None, None)
    known = isinstance(place, int) or (place is None and isinstance(key, int | str))
    if not known or isinstance(place, bool) or isinstance(key, bool) or not isinstance(key, int | str | None):
        raise BenchmarkError(f'{where}: an object with a number under "index" or "question_id" expected')
    return Line(where=where, place=place, key=key, answer=_answer(where, entry))


def _answer(where: str, entry: Mapping[str, Any]) -> Answer:
    candidates, logprobs, greedy = entry.get("candidates"), entry.get("logprobs"), entry.get("greedy")
    if not isinstance(candidates, list) or not candidates or not all(isinstance(c, str) for c in candidates):
        raise BenchmarkError(f'{where}: a list of at least one SQL text expected under "candidates"')
    if logprobs is not None:
        fault = logprobs_fault(logprobs, len(candidates))
        if fault:
            raise BenchmarkError(f"{where}: {fault}")
    if greedy is not None and not isinstance(greedy, str):
        raise BenchmarkError(f'{where}: SQL text expected under "greedy"')
    tokens = {name: entry.get(name, 0) for name in ("prompt_tokens", "completion_tokens")}
    for name, count in tokens.items():
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise BenchmarkError(f'{where}: a number of tokens expected under "{name}"')
    return Answer(
        candidates=tuple(candidates),
        logprobs=tuple(map(float, logprobs)) if logprobs is not None else None,
        greedy=greedy,
        **tokens,
    )
