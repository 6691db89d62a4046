"""A run's folder: who may write into it, its row files, its configuration and its summary.

Guarantees: one driver at a time (an advisory lock that ends with its process); an earlier run's rows are never
overwritten; after `rewind(step)` every row file ends at that step. Does not write checkpoints.
"""

import fcntl
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import TypeAdapter, ValidationError
from yaml import YAMLError

from conf.errors import QuorumError, first_line
from records.files import Json, RecordsDamaged, RowWriter, read_rows, rewind, write_atomically
from records.identity import Identity
from records.metrics import Row
from records.states import FILE as STATES
from records.summary import RunSummary
from rollout.carriers import ScoredGroup
from rollout.prompt.cut import CUT, CutPrompt, cut_lines
from rollout.tasks.carriers import Dropped

METRICS = "metrics.jsonl"
LEDGER = "ledger.jsonl"
SAMPLES = "samples.jsonl"
DROPPED = "dropped.jsonl"
SUMMARY = "summary.json"
CONFIG = "config.yaml"
REPORT = "report.html"
CHECKPOINTS = "checkpoints"
LOCK = ".lock"
LOCK_WAIT_S = 0.5
"""Longest wait for a reader that looks whether the folder is in use."""


class RunFolderError(QuorumError):
    """The folder cannot take this run; the message says what to do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LedgerRow:
    """What one optimizer step trained on and what it dropped."""

    step: int
    version: int
    """Policy version after the step."""
    trained: tuple[tuple[str, str, int], ...]
    """(group id, task id, oldest policy version of its tokens)."""
    dropped: tuple[tuple[str, str, str], ...] = ()
    """(group id, task id, reason)."""

    def as_json(self) -> Json:
        return {"step": self.step, "version": self.version, "trained": self.trained, "dropped": self.dropped}


def sample_row(scored: ScoredGroup, *, step: int, version: int) -> Json:
    """One group in full, as samples.jsonl holds it."""
    group, task = scored.group, scored.group.prompt.task
    return {
        "step": step,
        "version": version,
        "group_id": group.id,
        "task_id": task.id,
        "db_id": task.db_id,
        "difficulty": task.difficulty,
        "question": task.question,
        "evidence": task.evidence,
        "gold_sqls": task.gold_sqls,
        "prompt": group.prompt.text,
        "prompt_tokens": len(group.prompt.token_ids),
        "completions": [
            {
                "text": completion.text,
                "tokens": len(completion.token_ids),
                "finish_reason": completion.finish_reason,
                "status": result.status,
                "correct": result.correct,
                "total": result.total,
                "components": result.components,
                "sql": result.sql,
                "error_kind": result.error_kind,
                "error": result.error,
                "flags": result.flags,
                "cause": result.cause,
            }
            for completion, result in zip(group.completions, scored.results, strict=True)
        ],
    }


class RunFolder:
    """An open run folder. A context manager; leaving it closes the files and frees the lock."""

    def __init__(self, path: Path, *, resume: bool = False) -> None:
        """Makes the folder, or opens the one there when `resume`, and then leaves what the run has recorded as it is:
        `rewind` comes before the first row. Raises RunFolderError."""
        self.path = path
        with _writing(path), ExitStack() as opened:
            (path / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
            self._lock = opened.enter_context(_lock(path))
            if not resume:
                _refuse_earlier_run(path)
                (path / SUMMARY).unlink(missing_ok=True)
            # Of a driver that was killed.
            (path / STATES).unlink(missing_ok=True)
            self._open_rows()
            if not resume:
                for writer in self._writers:
                    writer.open()
            opened.pop_all()

    def _open_rows(self) -> None:
        self._metrics = RowWriter(self.path / METRICS)
        self._ledger = RowWriter(self.path / LEDGER)
        self._samples = RowWriter(self.path / SAMPLES)

    @property
    def _writers(self) -> tuple[RowWriter, ...]:
        return self._metrics, self._ledger, self._samples

    def write_config(self, resolved_yaml: str) -> None:
        """Keeps the resolved configuration beside the results. Raises RunFolderError."""
        with _writing(self.path):
            write_atomically(self.path / CONFIG, resolved_yaml)

    def write_identity(self, identity: Identity) -> None:
        """Keeps what the run is made from, for those who would go on from its rows. Raises RunFolderError."""
        with _writing(self.path):
            identity.write(self.path)

    def write_dropped(self, entries: Iterable[Dropped]) -> None:
        """Keeps what the data lost before training, one row an entry. Raises RunFolderError."""
        rows = (json.dumps({"id": e.id, "reason": e.reason, "detail": e.detail}) + "\n" for e in entries)
        with _writing(self.path):
            write_atomically(self.path / DROPPED, "".join(rows))

    def write_cut(self, entries: Sequence[CutPrompt]) -> None:
        """Keeps which prompts show a part of their schema, one row a prompt. Raises RunFolderError."""
        with _writing(self.path):
            write_atomically(self.path / CUT, cut_lines(entries))

    def write(self, row: Row) -> None:
        """Appends one row to metrics.jsonl; with `close` this makes the folder a metrics sink."""
        self._metrics.append(row)

    def write_ledger(self, row: LedgerRow) -> None:
        """Appends one optimizer step to ledger.jsonl."""
        self._ledger.append(row.as_json())

    def write_samples(self, groups: Sequence[ScoredGroup], *, step: int, version: int) -> None:
        """Appends groups in full to samples.jsonl."""
        for group in groups:
            self._samples.append(sample_row(group, step=step, version=version))

    def metrics(self) -> list[Json]:
        """All rows logged so far, of this process and of the ones it continues."""
        return list(read_rows(self.path / METRICS))

    def sync(self) -> None:
        """Puts all rows on the disk; call it before a checkpoint's manifest is written, so that rows never lag it."""
        for writer in self._writers:
            writer.sync()

    def check(self, step: int | None) -> None:
        """Reads the rows, and changes nothing. Raises RecordsDamaged unless `rewind(step)` can be made and leaves the
        ledger with exactly the steps 1 to `step`: the run would count something twice or not at all."""
        last = -1 if step is None else step
        _, ledger, _ = [list(_steps(self.path / name)) for name in (METRICS, LEDGER, SAMPLES)]
        steps = [one for one in ledger if one <= last]
        if steps != list(range(1, last + 1)):
            raise RecordsDamaged(
                f"{self.path / LEDGER} should hold the checkpoint's steps 1 to {last}, each once, but holds "
                f"{len(steps)} rows{f', the last of step {steps[-1]}' if steps else ''}"
            )

    def rewind(self, step: int | None) -> dict[str, int]:
        """Cuts every row file back to `step`, the checkpoint that the run continues from; returns rows dropped by file.

        None: there is no checkpoint, the run starts again and keeps nothing. Each file is replaced atomically and the
        whole may be repeated. Raises RecordsDamaged as `check` does, before anything is cut.
        """
        last = -1 if step is None else step
        self.check(step)
        for writer in self._writers:
            writer.close()
        dropped = {
            name: rewind(self.path / name, lambda row: row["step"] <= last) for name in (METRICS, LEDGER, SAMPLES)
        }
        (self.path / SUMMARY).unlink(missing_ok=True)
        self._open_rows()
        for writer in self._writers:
            writer.open()
        return dropped

    def finish(self, summary: RunSummary) -> Path:
        """Writes summary.json atomically and returns its path."""
        path = self.path / SUMMARY
        write_atomically(path, json.dumps(summary.as_json(), indent=2, allow_nan=False) + "\n")
        return path

    def close(self) -> None:
        """Closes the row files and frees the lock; may be called twice."""
        for writer in self._writers:
            writer.close()
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """What the disk refuses becomes one sentence."""
    try:
        yield
    except OSError as error:
        raise RunFolderError(f"the run folder {path} cannot be written: {error.strerror}") from error


def _steps(path: Path) -> Iterator[int]:
    for number, row in enumerate(read_rows(path), start=1):
        step = row.get("step")
        if type(step) is not int:
            raise RecordsDamaged(f"{path}:{number} names no step")
        yield step


def _lock(path: Path) -> IO[bytes]:
    file = (path / LOCK).open("ab")
    deadline = time.monotonic() + LOCK_WAIT_S
    while not _try_lock(file, fcntl.LOCK_EX):
        if time.monotonic() > deadline:
            file.close()
            raise RunFolderError(f"the run folder {path} is in use by another training process")
        time.sleep(0.02)
    return file


def _try_lock(file: IO[bytes], mode: int) -> bool:
    try:
        fcntl.flock(file, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_open(path: Path) -> bool:
    """Whether a training process writes into the folder now."""
    try:
        with (path / LOCK).open("rb") as file:
            return not _try_lock(file, fcntl.LOCK_SH)
    except FileNotFoundError:
        return False


def read_summary(path: Path) -> dict[str, Any] | None:
    """The summary of a run folder, with the fields of RunSummary; None while the run has not ended. Raises
    RecordsDamaged."""
    try:
        text = (path / SUMMARY).read_text(encoding="utf-8")
        summary = json.loads(text)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise RecordsDamaged(f"{path / SUMMARY} is no JSON that can be read: {error}") from error
    if not isinstance(summary, dict):
        raise RecordsDamaged(f"{path / SUMMARY} is no JSON object")
    try:
        TypeAdapter(RunSummary).validate_json(text, strict=True)
    except ValidationError as error:
        reason = first_line(error, otherwise="it holds something else")
        raise RecordsDamaged(f"{path / SUMMARY} is no summary of a run: {reason}") from error
    return summary


def read_config(path: Path) -> Json:
    """The resolved configuration of a run folder. Raises RecordsDamaged when there is none that can be read."""
    try:
        values = OmegaConf.to_container(OmegaConf.load(path / CONFIG))
    except (OSError, ValueError, RecursionError, YAMLError, OmegaConfBaseException) as error:
        raise RecordsDamaged(f"{path} holds no {CONFIG} that can be read: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise RecordsDamaged(f"{path / CONFIG} holds no settings")
    return cast(Json, values)


def has_rows(path: Path) -> bool:
    """Whether a run has recorded anything: one that ended before that, by a wrong path for instance, has nothing to
    lose."""
    return any((path / name).is_file() and (path / name).stat().st_size for name in (METRICS, LEDGER, SAMPLES))


def _refuse_earlier_run(path: Path) -> None:
    summary = read_summary(path)
    if summary is not None and summary.get("status") == "finished":
        raise RunFolderError(f"{path} holds a finished run, which is never overwritten: choose another run.name")
    if has_rows(path):
        raise RunFolderError(
            f"{path} holds a run that did not finish: continue it with resume=auto, or choose another run.name"
        )
