"""Reads the question file that a candidate file answers, and the candidates themselves."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conf.errors import QuorumError
from conf.schema.selection import CandidateFile
from rewards.carriers import SqlTask


class CandidatesUnusable(QuorumError):
    """A file is missing or does not fit the questions; the message says what was expected."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampled:
    """One question with its sampled queries."""

    task: SqlTask
    candidates: tuple[str, ...]
    logprobs: tuple[float, ...] | None


def read_candidates(config: CandidateFile) -> list[Sampled]:
    """Every line of the candidate file with its question, in the file's order. Raises CandidatesUnusable."""
    tasks = _tasks(config)
    found = []
    for number, line in enumerate(_text(Path(config.candidates), "candidates").split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{config.candidates} line {number}"
        try:
            entry = json.loads(line)
            key = entry["index"] if "index" in entry else entry["question_id"]
            candidates, logprobs = tuple(entry["candidates"]), entry.get("logprobs")
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise CandidatesUnusable(
                f'{where}: an object expected with "index" or "question_id", and "candidates" ({error})'
            ) from error
        if key not in tasks:
            raise CandidatesUnusable(
                f"{where}: question {key} is not in the question file of data.root={config.data.root}"
            )
        if not candidates or (logprobs is not None and len(logprobs) != len(candidates)):
            raise CandidatesUnusable(
                f"{where}: at least one candidate expected, and as many logprobs where there are any"
            )
        found.append(Sampled(task=tasks[key], candidates=candidates, logprobs=tuple(logprobs) if logprobs else None))
    if not found:
        raise CandidatesUnusable(f"{config.candidates}: at least one line of candidates expected")
    return found


def _tasks(config: CandidateFile) -> dict[int, SqlTask]:
    data, root = config.data, Path(config.data.root)
    file = root / (data.heldout_file if config.split == "heldout" else data.train_file)
    if data.type == "spider":
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
        tasks[key] = _task(entry, gold_key, folder, f"{file} entry {position}", config, key)
    return tasks


def _task(entry: dict[str, Any], gold_key: str, folder: Path, where: str, config: CandidateFile, key: int) -> SqlTask:
    try:
        db_id, question, gold = entry["db_id"], entry["question"], entry[gold_key]
    except (KeyError, TypeError) as error:
        raise CandidatesUnusable(f"{where}: db_id, question and {gold_key} expected ({error} is missing)") from error
    primary = folder / db_id / f"{db_id}.sqlite"
    if not primary.is_file():
        raise CandidatesUnusable(f"{where}: a database expected at {primary}")
    others = sorted(f for f in primary.parent.glob("*.sqlite") if f != primary) if config.instances == "all" else []
    return SqlTask(
        id=str(key),
        db_id=db_id,
        question=question,
        evidence=entry.get("evidence") or "",
        gold_sqls=(gold,),
        databases=tuple(str(file) for file in (primary, *others)),
        denotation=config.data.denotation,
        split=config.split,
        difficulty=entry.get("difficulty"),
    )


def _text(file: Path, what: str) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise CandidatesUnusable(f"{what}: a file expected at {file} ({error.strerror})") from error
