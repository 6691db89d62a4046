"""Reads the question file that a candidate file answers, and the candidates themselves."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from conf.errors import QuorumError
from conf.schema.data import BirdData, Denotation, SpiderData
from conf.schema.selection import CandidateFile
from rewards.carriers import SqlTask
from rewards.sql.files import instance_files


class CandidatesUnusable(QuorumError):
    """A file is missing or does not fit the questions; the message says what was expected."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampled:
    """One question with its sampled queries."""

    task: SqlTask
    candidates: tuple[str, ...]
    logprobs: tuple[float, ...] | None


def read_candidates(config: CandidateFile) -> list[Sampled]:
    """Every question of the candidate files once, in their order, with the candidates of all files. Raises
    CandidatesUnusable.
    """
    tasks = _tasks(config, config.data) if config.data is not None else None
    pooled: dict[int, Sampled] = {}
    for file in config.files:
        for number, line in enumerate(_text(Path(file), "candidates").split("\n"), start=1):
            if line.strip():
                key, found = _sampled(line, f"{file} line {number}", config, tasks)
                pooled[key] = _together(pooled[key], found) if key in pooled else found
    if not pooled:
        raise CandidatesUnusable(f"{', '.join(config.files)}: at least one line of candidates expected")
    return list(pooled.values())


def _sampled(line: str, where: str, config: CandidateFile, tasks: Mapping[int, SqlTask] | None) -> tuple[int, Sampled]:
    try:
        entry = json.loads(line)
        key = entry["index"] if "index" in entry else entry["question_id"]
        candidates, logprobs = tuple(entry["candidates"]), entry.get("logprobs")
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise CandidatesUnusable(
            f'{where}: an object expected with "index" or "question_id", and "candidates" ({error})'
        ) from error
    if not candidates or (logprobs is not None and len(logprobs) != len(candidates)):
        raise CandidatesUnusable(f"{where}: at least one candidate expected, and as many logprobs where there are any")
    task = _own_task(entry, where, config, key) if tasks is None else tasks.get(key)
    if task is None:
        raise CandidatesUnusable(f"{where}: question {key} is not in the question file that data names")
    return key, Sampled(task=task, candidates=candidates, logprobs=tuple(logprobs) if logprobs else None)


def _together(first: Sampled, second: Sampled) -> Sampled:
    """The candidates of both; log-probabilities only where both have them."""
    both = first.logprobs + second.logprobs if first.logprobs and second.logprobs else None
    return replace(first, candidates=first.candidates + second.candidates, logprobs=both)


def _own_task(entry: Mapping[str, Any], where: str, config: CandidateFile, key: int) -> SqlTask:
    """The question that a benchmark run wrote beside its candidates."""
    try:
        asked = entry["task"]
        databases = tuple(asked["databases"])
        task = SqlTask(
            id=str(key),
            db_id=asked["db_id"],
            question=asked["question"],
            evidence=asked["evidence"],
            gold_sqls=(asked["gold"],),
            databases=databases if config.instances == "all" else databases[:1],
            denotation=asked["denotation"],
            split=config.split,
        )
    except (KeyError, TypeError) as error:
        raise CandidatesUnusable(
            f"{where}: the question is not there ({error} is missing): give data=spider or data=bird, and data.root=DIR"
        ) from error
    missing = [database for database in databases if not Path(database).is_file()]
    if missing:
        raise CandidatesUnusable(f"{where}: a database expected at {missing[0]}")
    return task


def _tasks(config: CandidateFile, data: SpiderData | BirdData) -> dict[int, SqlTask]:
    root = Path(data.root)
    file = root / (data.heldout_file if config.split == "heldout" else data.train_file)
    if isinstance(data, SpiderData):
        folder, gold_key = root / data.database_folder, "query"
    else:
        folder, gold_key = root / (data.heldout_databases if config.split == "heldout" else data.train_databases), "SQL"
    try:
        entries = json.loads(_text(file, "questions"))
    except json.JSONDecodeError as error:
        raise CandidatesUnusable(f"{file} line {error.lineno}: a JSON list of questions expected") from error
    tasks = {}
    for position, entry in enumerate(entries):
        key = entry.get("question_id", position) if data.type == "bird" else position
        tasks[key] = _task(entry, gold_key, folder, f"{file} entry {position}", config, key, data.denotation)
    return tasks


def _task(
    entry: dict[str, Any],
    gold_key: str,
    folder: Path,
    where: str,
    config: CandidateFile,
    key: int,
    denotation: Denotation,
) -> SqlTask:
    try:
        db_id, question, gold = entry["db_id"], entry["question"], entry[gold_key]
    except (KeyError, TypeError) as error:
        raise CandidatesUnusable(f"{where}: db_id, question and {gold_key} expected ({error} is missing)") from error
    databases = instance_files(folder, db_id)
    if not databases:
        raise CandidatesUnusable(f"{where}: a database expected at {folder / db_id / db_id}.sqlite")
    return SqlTask(
        id=str(key),
        db_id=db_id,
        question=question,
        evidence=entry.get("evidence") or "",
        gold_sqls=(gold,),
        databases=databases if config.instances == "all" else databases[:1],
        denotation=denotation,
        split=config.split,
        difficulty=entry.get("difficulty"),
    )


def _text(file: Path, what: str) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise CandidatesUnusable(f"{what}: a file expected at {file} ({error.strerror})") from error
