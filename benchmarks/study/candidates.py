"""Reads the question file that a candidate file answers, and the candidates themselves."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from conf.errors import QuorumError
from conf.schema.data import BirdData, Denotation, SpiderData
from conf.schema.selection import CandidateFile
from rewards.carriers import SqlTask
from rewards.cases import load_json
from rewards.sql.files import instance_files
from rollout.tasks.published import GOLD_KEYS, Entry, read_entries
from selection.candidate import logprobs_fault


class CandidatesUnusable(QuorumError):
    """A file is missing or does not fit the questions; the message says what was expected."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampled:
    """One question with its sampled queries."""

    task: SqlTask
    candidates: tuple[str, ...]
    logprobs: tuple[float, ...] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Asked:
    """The questions of a question file, by place; `places` finds them by their ids."""

    tasks: Sequence[SqlTask]
    places: Mapping[str, Sequence[int]]

    def place(self, line: "_Line", number: int) -> int:
        """The place of the question that a line answers, the `number`-th of its file with this id. Raises
        CandidatesUnusable.
        """
        if line.index is not None:
            if not 0 <= line.index < len(self.tasks):
                raise CandidatesUnusable(
                    f"{line.where}: question {line.index} is not in the question file that data names"
                )
            return line.index
        places = self.places.get(str(line.key), ())
        if not places:
            raise CandidatesUnusable(f"{line.where}: question {line.key} is not in the question file that data names")
        if any(not _same(self.tasks[place], self.tasks[places[0]]) for place in places):
            raise CandidatesUnusable(
                f'{line.where}: question_id {line.key} stands for different questions: give "index" instead, the place '
                "in the question file from 0"
            )
        if number >= len(places):
            raise CandidatesUnusable(f"{line.where}: question {line.key} appears too often")
        return places[number]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Line:
    """One checked line of a candidate file."""

    where: str
    index: int | None
    key: int | str | None
    """Its question_id."""
    candidates: tuple[str, ...]
    logprobs: tuple[float, ...] | None
    entry: Mapping[str, Any]


def read_candidates(config: CandidateFile) -> list[Sampled]:
    """Every question of the candidate files once, in their order, with the candidates of all files. Raises
    CandidatesUnusable.
    """
    asked = _asked(config, config.data) if config.data is not None else None
    pooled: dict[tuple[str, int], Sampled] = {}
    for file in config.files:
        seen: Counter[str] = Counter()
        for number, text in enumerate(_text(Path(file), "candidates").split("\n"), start=1):
            if not text.strip():
                continue
            line = _line(text, f"{file} line {number}")
            name = str(line.key if line.index is None else line.index)
            if line.index is not None and seen[name]:
                raise CandidatesUnusable(f"{line.where}: question {name} appears a second time")
            if asked is None:
                key, task = (name, seen[name]), _own_task(line.entry, line.where, config, name)
            else:
                place = asked.place(line, seen[name])
                key, task = (str(place), 0), asked.tasks[place]
            seen[name] += 1
            found = Sampled(task=task, candidates=line.candidates, logprobs=line.logprobs)
            if key in pooled and not _same(task, pooled[key].task):
                raise CandidatesUnusable(f"{line.where}: question {name} is another one than in the files before")
            pooled[key] = _together(pooled[key], found) if key in pooled else found
    if not pooled:
        raise CandidatesUnusable(f"{', '.join(config.files)}: at least one line of candidates expected")
    return list(pooled.values())


def _line(text: str, where: str) -> _Line:
    try:
        entry = load_json(text.encode())
    except (ValueError, RecursionError) as error:
        raise CandidatesUnusable(f"{where}: an object expected, but it is no JSON: {error}") from error
    index, key = (entry.get(name) for name in ("index", "question_id")) if isinstance(entry, dict) else (None, None)
    named = isinstance(index, int) or (index is None and isinstance(key, int | str))
    if not named or isinstance(index, bool) or isinstance(key, bool) or not isinstance(entry.get("candidates"), list):
        raise CandidatesUnusable(f'{where}: an object expected with "index" or "question_id", and "candidates"')
    candidates, logprobs = entry["candidates"], entry.get("logprobs")
    if not candidates or not all(isinstance(one, str) for one in candidates):
        raise CandidatesUnusable(f"{where}: at least one candidate expected, each an SQL text")
    fault = logprobs_fault(logprobs, len(candidates)) if logprobs is not None else ""
    if fault:
        raise CandidatesUnusable(f"{where}: {fault}")
    return _Line(
        where=where,
        index=index,
        key=key,
        candidates=tuple(candidates),
        logprobs=tuple(map(float, logprobs)) if logprobs is not None else None,
        entry=entry,
    )


def _same(one: SqlTask, other: SqlTask) -> bool:
    """Whether both ask the same question of the same database."""
    return (one.db_id, one.question, one.evidence) == (other.db_id, other.question, other.evidence)


def _together(first: Sampled, second: Sampled) -> Sampled:
    """The candidates of both; log-probabilities only where both have them."""
    both = first.logprobs + second.logprobs if first.logprobs and second.logprobs else None
    return replace(first, candidates=first.candidates + second.candidates, logprobs=both)


def _own_task(entry: Mapping[str, Any], where: str, config: CandidateFile, key: str) -> SqlTask:
    """The question that a benchmark run wrote beside its candidates."""
    try:
        asked = entry["task"]
        databases = tuple(asked["databases"])
        task = SqlTask(
            id=key,
            db_id=asked["db_id"],
            # Files of earlier versions kept the white space around a published text.
            question=asked["question"].strip(),
            evidence=asked["evidence"].strip(),
            gold_sqls=(asked["gold"].strip(),),
            databases=databases if config.instances == "all" else databases[:1],
            denotation=asked["denotation"],
            split=config.split,
        )
    except (KeyError, TypeError) as error:
        raise CandidatesUnusable(
            f"{where}: the question is not there ({error} is missing): give data=spider or data=bird, and data.root=DIR"
        ) from error
    except AttributeError as error:
        raise CandidatesUnusable(f"{where}: question, evidence and gold must be texts") from error
    missing = [database for database in databases if not Path(database).is_file()]
    if missing:
        raise CandidatesUnusable(f"{where}: a database expected at {missing[0]}")
    return task


def _asked(config: CandidateFile, data: SpiderData | BirdData) -> _Asked:
    root = Path(data.root)
    heldout = config.split == "heldout"
    if isinstance(data, SpiderData):
        folder = root / data.database_folder
    else:
        folder = root / (data.heldout_databases if heldout else data.train_databases)
    places: dict[str, list[int]] = {}
    tasks = []
    for entry in read_entries(root / (data.heldout_file if heldout else data.train_file), GOLD_KEYS[data.type]):
        places.setdefault(str(entry.key), []).append(entry.place)
        tasks.append(_task(entry, folder, config, data.denotation))
    return _Asked(tasks=tasks, places=places)


def _task(entry: Entry, folder: Path, config: CandidateFile, denotation: Denotation) -> SqlTask:
    databases = instance_files(folder, entry.db_id)
    if not databases:
        raise CandidatesUnusable(f"{entry.where}: a database expected at {folder / entry.db_id / entry.db_id}.sqlite")
    return SqlTask(
        id=str(entry.key),
        db_id=entry.db_id,
        question=entry.question,
        evidence=entry.evidence,
        gold_sqls=(entry.gold,),
        databases=databases if config.instances == "all" else databases[:1],
        denotation=denotation,
        split=config.split,
        difficulty=entry.difficulty,
    )


def _text(file: Path, what: str) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise CandidatesUnusable(f"{what}: a file expected at {file} ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise CandidatesUnusable(f"{file}: UTF-8 text expected (byte {error.start})") from error
