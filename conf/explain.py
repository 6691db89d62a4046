"""Turns a pydantic validation error into sentences that name the setting and the nearest valid choice."""

import difflib
from collections.abc import Iterable, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError


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


def explain_validation(schema: type[BaseModel], values: dict[str, Any], error: ValidationError) -> str:
    """One line a problem."""
    return "\n".join(_explain(schema, values, dict(problem)) for problem in error.errors())


def _explain(schema: type[BaseModel], values: dict[str, Any], problem: dict[str, Any]) -> str:
    path = _without_tags(values, problem["loc"])
    name = ".".join(path)
    if problem["type"] == "extra_forbidden":
        variants = _variants(schema, path)
        if variants:
            parent = ".".join(path[:-1])
            choice = f"{parent}={variants[0]}" if len(path) == 2 else f"{parent}.type={variants[0]}"
            return f"{name} is a setting of {choice}: choose that, or leave it out"
        siblings = [key for key in dotted_keys(schema) if key.rpartition(".")[0] == ".".join(path[:-1])]
        leaf = nearest(path[-1], [key.rpartition(".")[2] for key in siblings])
        if leaf:
            return f"{name} is not a setting{leaf}"
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
    return f"{name}={problem['input']}: {problem['msg'][0].lower()}{problem['msg'][1:]}"


def _variants(schema: type[BaseModel], path: Sequence[str]) -> list[str]:
    """The union variants of the section that know its setting, by their `type`."""
    models = [schema]
    for part in path[:-1]:
        fields = [model.model_fields[part] for model in models if part in model.model_fields]
        models = [model for field in fields for model in _models(field.annotation)]
    return [model.model_fields["type"].default for model in models if {path[-1], "type"} <= model.model_fields.keys()]


def _without_tags(values: Any, location: Sequence[Any]) -> list[str]:
    """Drops the union tags that pydantic puts between a section and its field."""
    path: list[str] = []
    here = values
    for part in location:
        if isinstance(here, dict) and part not in here and here.get("type") == part:
            continue
        path.append(str(part))
        here = here.get(part) if isinstance(here, dict) else None
    return path


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models(argument)]
