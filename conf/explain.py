"""Turns a pydantic validation error into sentences that name the setting and the nearest valid choice."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

SECTION_EXPECTED = ("model_type", "model_attributes_type", "dict_type")
"""Kinds of problems of a section that was given as a single value."""


def nearest(word: str, choices: Iterable[str]) -> str:
    """' (did you mean X?)' or ''."""
    matches = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.5)
    return f" (did you mean {matches[0]}?)" if matches else ""


def dotted_keys(schema: type[BaseModel], prefix: str = "") -> list[str]:
    """All settings of a schema as dotted names, every variant of a union included."""
    keys: list[str] = []
    for name, field in schema.model_fields.items():
        models = _models(field.annotation)
        keys.append(f"{prefix}{name}")
        for model in models:
            keys.extend(dotted_keys(model, f"{prefix}{name}."))
    return list(dict.fromkeys(keys))


def fields_at(schema: type[BaseModel], path: Sequence[str]) -> list[FieldInfo]:
    """The setting of this path in every variant of the sections that lead to it; none where there is none."""
    models = _sections(schema, path[:-1])
    return [model.model_fields[path[-1]] for model in models if path[-1] in model.model_fields]


def explain_validation(schema: type[BaseModel], values: dict[str, Any], error: ValidationError) -> str:
    """One line a problem: where it is, what is wrong, and where that can be told what to write."""
    lines: dict[tuple[str, ...], list[str]] = {}
    for problem in error.errors():
        path = _path(values, problem)
        lines.setdefault(tuple(path), []).append(_explain(schema, path, problem))
    # Where a setting takes one thing or many, an item's problem says more than that it should have been no list.
    told = [
        _together(problems)
        for path, problems in lines.items()
        if not any(len(other) > len(path) and other[: len(path)] == path for other in lines)
    ]
    return "\n".join(told)


def _together(lines: Sequence[str]) -> str:
    """What each alternative of a setting asks for, in one line."""
    first, *others = dict.fromkeys(lines)
    head = f"{first.rpartition(': ')[0]}: "
    return " or ".join([first, *(other.removeprefix(head).removeprefix("input should be ") for other in others)])


def _explain(schema: type[BaseModel], path: Sequence[str], problem: Mapping[str, Any]) -> str:
    name = ".".join(path)
    if problem["type"] == "extra_forbidden":
        variants = _variants(schema, path)
        if variants:
            parent = ".".join(path[:-1])
            choice = f"{parent}={variants[0]}" if len(path) == 2 else f"{parent}.type={variants[0]}"
            return f"{name} is a setting of {choice}: choose that, or leave it out"
        siblings = [key for key in dotted_keys(schema) if key.rpartition(".")[0] == ".".join(path[:-1])]
        leaf = nearest(path[-1], [_leaf(key) for key in siblings])
        if leaf:
            return f"{name} is not a setting{leaf}"
        if len(path) > 1 and siblings:
            return f"{name} is not a setting; {'.'.join(path[:-1])} has {', '.join(map(_leaf, siblings))}"
        elsewhere = [key for key in dotted_keys(schema) if key.rpartition(".")[2] == path[-1]]
        hint = f" (did you mean {elsewhere[0]}?)" if elsewhere else nearest(name, dotted_keys(schema))
        return f"{name} is not a setting{hint}"
    if problem["type"] == "union_tag_not_found":
        return f"{name} needs a type: add {name}.type={' or '.join(_variants(schema, [*path, 'type']))}"
    if problem["type"] == "missing":
        return f"{name} has no default: give it as {name}=VALUE"
    if problem["type"] in ("literal_error", "union_tag_invalid"):
        expected = problem["ctx"].get("expected") or problem["ctx"].get("expected_tags")
        given = problem["ctx"].get("tag", problem["input"])
        choices = [choice.strip("' ") for choice in str(expected).replace(" or ", ", ").split(",")]
        return f"{name}={given}: choose one of {', '.join(choices)}{nearest(str(given), choices)}"
    if problem["type"] == "value_error":
        message = str(problem["ctx"]["error"])
        return f"{name}: {message}" if name else message
    if problem["type"] in SECTION_EXPECTED:
        types = _variants(schema, [*path, "type"])
        inner = [key for key in dotted_keys(schema) if key.startswith(f"{name}.")]
        wanted = f"{name}.type={' or '.join(types)}" if types else f"{inner[0]}=VALUE" if inner else "name=VALUE"
        return f"{name}={problem['input']}: a section, whose settings are written one by one: {wanted}"
    if problem["type"] in ("tuple_type", "list_type"):
        return f"{name}={problem['input']}: input should be a list, written [A,B]"
    return f"{name}={problem['input']}: {problem['msg'][0].lower()}{problem['msg'][1:]}"


def _leaf(key: str) -> str:
    return key.rpartition(".")[2]


def _variants(schema: type[BaseModel], path: Sequence[str]) -> list[str]:
    """The union variants of the section that know its setting, by their `type`."""
    models = _sections(schema, path[:-1])
    return [model.model_fields["type"].default for model in models if {path[-1], "type"} <= model.model_fields.keys()]


def _sections(schema: type[BaseModel], path: Sequence[str]) -> list[type[BaseModel]]:
    """The section of this path, every variant of it."""
    models = [schema]
    for part in path:
        fields = [model.model_fields[part] for model in models if part in model.model_fields]
        models = [model for field in fields for model in _models(field.annotation)]
    return models


def _path(values: Any, problem: Mapping[str, Any]) -> list[str]:
    """The names of the settings that lead to the problem, without what pydantic puts between them: tags of unions, and
    names of alternative types.
    """
    path: list[str] = []
    here = values
    *sections, last = problem["loc"] or (None,)
    for part in sections:
        if isinstance(here, dict) and part in here or isinstance(here, list | tuple) and isinstance(part, int):
            path.append(str(part))
            here = here[part]
    there = isinstance(here, dict) and (last in here or problem["type"] == "missing")
    if there or (isinstance(here, list | tuple) and isinstance(last, int)):
        path.append(str(last))
    return path


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models(argument)]
