"""Relative paths of a configuration, made absolute in one place: actors on other machines, or with another working
directory, then read what the user meant.

Which settings are paths is said by their types in the schema. Guarantees: a name of the model hub stays a name; `..`
and links stay as typed. Does not look whether anything is there, but for the folder of a model.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from conf.schema.base import Kind

Config = TypeVar("Config", bound=BaseModel)


def kinds(field: FieldInfo) -> set[Kind]:
    """The kinds of text that a setting takes; empty for one that takes none."""
    return {mark for mark in (*field.metadata, *inner_types(field.annotation)) if isinstance(mark, Kind)}


def absolute(config: Config, base: Path) -> Config:
    """The configuration with its relative paths taken from `base`."""
    changes: dict[str, Any] = {}
    for name, field in type(config).model_fields.items():
        before = getattr(config, name)
        after = _absolute(before, kinds(field), base)
        if after is not before:
            changes[name] = after
    return config.model_copy(update=changes) if changes else config


def relative_paths(config: BaseModel, base: Path, prefix: str = "") -> dict[str, str | tuple[str, ...]]:
    """The settings that `absolute` changes, by dotted name, with what they become."""
    found: dict[str, str | tuple[str, ...]] = {}
    for name, field in type(config).model_fields.items():
        before = getattr(config, name)
        if isinstance(before, BaseModel):
            found |= relative_paths(before, base, f"{prefix}{name}.")
        elif (after := _absolute(before, kinds(field), base)) is not before:
            found[f"{prefix}{name}"] = after
    return found


def _absolute(value: Any, marks: set[Kind], base: Path) -> Any:
    if isinstance(value, BaseModel):
        return absolute(value, base)
    if isinstance(value, tuple) and marks & {Kind.PATH, Kind.MODEL}:
        items = tuple(_absolute(item, marks, base) for item in value)
        return value if items == value else items
    if not isinstance(value, str) or Path(value).is_absolute():
        return value
    if Kind.PATH in marks or (Kind.MODEL in marks and (base / value).is_dir()):
        return str(base / value)
    return value


def inner_types(annotation: Any) -> Iterator[Any]:
    """What an annotation is built from, the metadata of its parts included."""
    for argument in get_args(annotation):
        yield argument
        yield from inner_types(argument)
