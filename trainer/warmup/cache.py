"""Finished warm-ups by content hash: a folder appears by rename, or not at all, with what was left out of it.

The hash covers everything that decides the weights: model, prompt and warm-up settings, the seed, every prompt's
ingredients and every answer, and the versions of the libraries that train. It does not cover the machine: another CPU
may round differently.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from conf.errors import QuorumError, first_line
from conf.output import publish
from conf.schema.model import PretrainedModel, TinyModel
from conf.schema.prompt import PromptConfig
from conf.schema.stages import WARMUP_IRRELEVANT, WarmupConfig
from rollout.prompt.described import SchemaReader
from rollout.tasks.carriers import Dropped, TaskSet
from trainer.warmup.corpus import trace_of

RECIPE = 4
"""Raise when trainer/warmup changes what it writes for the same settings."""

_DROPPED = "dropped.json"
_LIBRARIES = ("torch", "transformers", "trl", "tokenizers")


def content_hash(
    tasks: TaskSet, *, model: TinyModel | PretrainedModel, prompt: PromptConfig, warmup: WarmupConfig, seed: int
) -> str:
    """Hexadecimal name of the warm-up that these inputs lead to. Raises DatabaseUnreadable."""
    schemas = SchemaReader(prompt.example_values)
    digest = hashlib.sha256()

    def add(value: object) -> None:
        digest.update(json.dumps(value, sort_keys=True).encode() + b"\n")

    add([RECIPE, seed, {name: version(name) for name in _LIBRARIES}])
    add(model.model_dump(mode="json"))
    add(_base_files(model))
    add(prompt.model_dump(mode="json"))
    add(warmup.model_dump(mode="json", exclude={*WARMUP_IRRELEVANT}))
    for database in dict.fromkeys(task.databases[0] for task in tasks.warmup):
        add([asdict(column) for column in schemas.read(database)])
    for task in tasks.warmup:
        trace = trace_of(task, tasks)
        add([task.id, task.db_id, task.question, task.evidence, trace.reasoning, trace.sql])
    return digest.hexdigest()[:20]


def _base_files(model: TinyModel | PretrainedModel) -> Mapping[str, tuple[int, int]]:
    """Sizes and modification times of a local base model: a retrained folder under the same path is another base."""
    if isinstance(model, TinyModel) or not Path(model.path).is_dir():
        return {}
    stats = {file.name: file.stat() for file in Path(model.path).iterdir() if file.is_file()}
    return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}


def keep_left_out(folder: Path, dropped: Sequence[Dropped]) -> None:
    """Writes the warm-up tasks that did not fit beside the policy, for every run that finds it in the cache."""
    (folder / _DROPPED).write_text(json.dumps([asdict(entry) for entry in dropped]), encoding="utf-8")


def left_out(folder: Path) -> tuple[Dropped, ...]:
    """The warm-up tasks that did not fit when this policy was made. Raises QuorumError."""
    try:
        return tuple(TypeAdapter(list[Dropped]).validate_json((folder / _DROPPED).read_bytes()))
    except (OSError, ValidationError) as error:
        reason = first_line(error, otherwise="it cannot be read")
        raise QuorumError(
            f"{folder / _DROPPED} is damaged ({reason}): remove {folder} to make the warm-up again"
        ) from error


@contextmanager
def publishing(folder: Path) -> Iterator[Path]:
    """A scratch folder that becomes `folder` when the block ends without an error.

    Raises QuorumError when the place, or what belongs into it, cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".warming-up-", dir=folder.parent))
    except OSError as error:
        raise QuorumError(f"warmup.cache={folder.parent}: cannot be written: {error}") from error
    try:
        yield scratch
        publish(scratch, folder)
    except QuorumError:
        raise
    except Exception as error:  # the libraries that write a model have no class for what they refuse to write
        reason = first_line(error, otherwise=type(error).__name__)
        raise QuorumError(f"warmup.cache={folder.parent}: the policy could not be written: {reason}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
