"""generations.jsonl: every finished question's completions, so that a killed run continues where it was.

The first line says what made them; a folder whose generations were made otherwise is refused, never mixed. Each further
line is one question, written and flushed when it is finished; a line cut short by a kill is dropped when the file is
opened again.
"""

import hashlib
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from benchmarks.carriers import Answer, BenchmarkError, Question
from benchmarks.folder import GENERATIONS
from benchmarks.predictions import NO_ANSWER
from conf.schema.benchmark import BenchmarkConfig
from rewards.cases import load_json
from rewards.sql.parse import extract_sql

TERMINAL_S, LOG_S = 0.2, 10.0
"""Seconds between two words of progress, on a terminal and in a log."""


def settings(config: BenchmarkConfig, questions: Sequence[Question], model: str) -> dict[str, Any]:
    """Everything that the completions depend on. `model` identifies the model and its weights."""
    asked = hashlib.sha256()
    for question in questions:
        asked.update(f"{question.position}\0{question.db_id}\0{question.question}\0{question.evidence}\n".encode())
    return {
        "model": model,
        "sampling": config.sampling.model_dump(),
        "prompt": config.prompt.model_dump(),
        "seed": config.seed,
        "questions": asked.hexdigest(),
    }


def folder_identity(folder: Path) -> str:
    """Names, sizes and times of a model folder's files as one digest."""
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        status = file.stat()
        digest.update(f"{file.relative_to(folder)}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


class Progress:
    """The generations of one output folder, which the caller holds (benchmarks/folder.py). Use as a context manager."""

    def __init__(self, output: Path, made_with: Mapping[str, Any], total: int) -> None:
        """`total` questions are asked for. Raises BenchmarkError when the folder holds generations of other settings or
        a file that no run wrote.
        """
        self._file = output / GENERATIONS
        self._total = total
        self._told = 0.0
        self.done: dict[int, dict[str, Any]] = {}
        """Finished questions by their place in the question file, which a record calls its key."""
        content = self._file.read_bytes() if self._file.is_file() else b""
        whole = content[: content.rfind(b"\n") + 1]
        if whole:
            self._read(whole, made_with)
            os.truncate(self._file, len(whole))  # a kill may have cut the last line
        else:
            self._file.write_text(json.dumps({"made_with": made_with}) + "\n", encoding="utf-8")
        self._stream: TextIO = self._file.open("a", encoding="utf-8")

    def _read(self, content: bytes, made_with: Mapping[str, Any]) -> None:
        header, *lines = content.splitlines()
        try:
            _check(self._file, load_json(header), made_with)
            for line in lines:
                record = load_json(line)
                self.done[record["key"]] = record
        except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
            raise BenchmarkError(f"{self._file} is no file of generations: choose another output=DIR") from error

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exc: object) -> None:
        self._stream.close()

    def add(self, record: dict[str, Any]) -> None:
        """Keeps one finished question: key, completions, greedy, prompt_tokens. Raises BenchmarkError."""
        try:
            self._stream.write(json.dumps(record, allow_nan=False) + "\n")
            self._stream.flush()
        except OSError as error:
            raise BenchmarkError(f"{self._file} cannot be written: {error.strerror}") from error
        self.done[record["key"]] = record
        self._tell()

    def _tell(self) -> None:
        """How far it is, on stderr: a line that is rewritten on a terminal, a new one now and then elsewhere."""
        now, terminal, done = time.monotonic(), sys.stderr.isatty(), len(self.done)
        if done == self._total or now - self._told > (TERMINAL_S if terminal else LOG_S):
            self._told = now
            returned = "\r" if terminal else ""
            end = "\n" if done == self._total or not terminal else ""
            sys.stderr.write(f"{returned}{done} of {self._total} questions answered{end}")
            sys.stderr.flush()

    def answers(self, questions: Sequence[Question], *, thinking: bool) -> tuple[Answer, ...]:
        """One answer a question; all must be done."""
        return tuple(_answer(self.done[question.position], thinking) for question in questions)


def _check(file: Path, header: Mapping[str, Any], made_with: Mapping[str, Any]) -> None:
    before = header.get("made_with", {})
    # Compared as JSON reads it back.
    now = json.loads(json.dumps(made_with))
    different = [name for name in now if before.get(name) != now[name]]
    if different:
        raise BenchmarkError(
            f"{file} holds generations made with other settings ({', '.join(different)}): choose another output=DIR, "
            "or give the same settings to continue that run"
        )


def _answer(record: Mapping[str, Any], thinking: bool) -> Answer:
    completions, greedy = record["completions"], record["greedy"]
    logprobs = [completion["logprob"] for completion in completions]
    used = [*completions, greedy] if greedy else completions
    return Answer(
        candidates=tuple(_sql(completion["text"], thinking) for completion in completions),
        logprobs=None if None in logprobs else tuple(logprobs),
        greedy=_sql(greedy["text"], thinking) if greedy else None,
        prompt_tokens=record["prompt_tokens"],
        completion_tokens=sum(completion["tokens"] for completion in used),
    )


def _sql(text: str, thinking: bool) -> str:
    return extract_sql(text, thinking=thinking).sql or NO_ANSWER
