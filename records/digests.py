"""Short digests of what a run is made from: a model's weights and files, tasks, and the databases that decide them.

Weights are not read whole, which takes a minute for each 30 GB and longer over a network: of each tensor its name,
type, shape and its first and last bytes count. Headers and sizes alone would not tell a base model from its instruct
version; training changes every matrix from end to end. An edit in the middle of one tensor goes unnoticed. Everything
else is read whole; a database once for each state of its file, as the check of the data does.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import NonNegativeInt, TypeAdapter, ValidationError

from conf.errors import QuorumError
from rewards.carriers import SqlTask
from rewards.sql.content import content_key
from rewards.sql.snapshot import DatabaseUnreadable

SAMPLE_BYTES = 16 * 1024
"""Read at each end of a tensor: 7 MB of a model of 3 billion parameters."""
LONGEST_HEADER = 100 * 2**20
"""What the safetensors format allows."""
SHOWN = 16
"""Hexadecimal digits of a digest."""


class WeightsUnreadable(QuorumError):
    """A file of weights cannot be read, or is not in the safetensors format."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitDigest:
    """Tasks, in their order."""

    tasks: int
    ids: str
    contents: str
    """Of questions, evidence and golds."""
    databases: str
    """Of the content of every instance, whatever the file is called."""

    @property
    def whole(self) -> str:
        return _digest([self.ids, self.contents, self.databases])


@dataclass(frozen=True, slots=True)
class _Tensor:
    dtype: str
    shape: tuple[NonNegativeInt, ...]
    data_offsets: tuple[NonNegativeInt, NonNegativeInt]


_HEADER = TypeAdapter(dict[str, _Tensor])


def split_digest(tasks: Sequence[SqlTask]) -> SplitDigest:
    """A database that cannot be read counts as that."""
    known = {file: _content(file) for file in dict.fromkeys(file for task in tasks for file in task.databases)}
    return SplitDigest(
        tasks=len(tasks),
        ids=_digest(task.id for task in tasks),
        contents=_digest([task.question, task.evidence, task.gold_sqls] for task in tasks),
        databases=_digest([known[file] for file in task.databases] for task in tasks),
    )


def digest_of(values: Iterable[Any]) -> str:
    """Of JSON values."""
    return _digest(values)


def files_digest(folder: Path, names: Iterable[str]) -> str:
    """Of those of the files that are there, whole."""
    found = (name for name in sorted(names) if (folder / name).is_file())
    return _digest([name, hashlib.sha256((folder / name).read_bytes()).hexdigest()] for name in found)


def weights_digest(folder: Path) -> str:
    """Of the safetensors in a folder, however they are divided over files. Raises WeightsUnreadable."""
    return _digest(sorted(entry for file in folder.glob("*.safetensors") for entry in _tensors(file)))


def _tensors(file: Path) -> Iterator[list[Any]]:
    try:
        opened = file.open("rb")
    except OSError as error:  # a link to nothing, for instance
        raise WeightsUnreadable(f"{file} cannot be read: {error.strerror}") from error
    with opened:
        length = int.from_bytes(opened.read(8), "little")
        try:
            header = json.loads(opened.read(min(length, LONGEST_HEADER)))
            if isinstance(header, dict):
                header.pop("__metadata__", None)
            tensors = _HEADER.validate_python(header)
        except (ValueError, RecursionError, ValidationError) as error:
            raise WeightsUnreadable(f"{file} is no safetensors file that can be read") from error
        for name, tensor in tensors.items():
            first, end = tensor.data_offsets
            sampled = hashlib.sha256()
            for start in (first, max(first, end - SAMPLE_BYTES)):
                opened.seek(8 + length + start)
                sampled.update(opened.read(max(0, min(SAMPLE_BYTES, end - start))))
            yield [name, tensor.dtype, tensor.shape, sampled.hexdigest()]


def _content(database: str) -> str:
    try:
        return content_key(database)
    except DatabaseUnreadable:
        return "unreadable"


def _digest(values: Iterable[Any]) -> str:
    digest = hashlib.sha256()
    for value in values:
        digest.update(json.dumps(value).encode("utf-8", "backslashreplace") + b"\n")
    return digest.hexdigest()[:SHOWN]
