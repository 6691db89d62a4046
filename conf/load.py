"""Compose -> resolve -> validate: from command-line overrides to a frozen configuration.

Hydra composes the YAML groups of this folder, OmegaConf resolves interpolations, and the pydantic schema validates the
result. The YAML files hold choices only; defaults live in the schema, so `--cfg job` prints both. Every failure is a
ConfigError that names the setting, what is wrong with it and the nearest valid choice.

A setting that is text takes the text that was typed, also where Hydra would read a number, a truth value, a list or
nothing at all: run.name=20261130, model.revision=1e5, data.root=/tmp/a=b. What Hydra reads as text keeps Hydra's
meaning: quotes, escapes and ${...}.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, get_args, get_origin

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from conf.errors import ConfigError, first_line
from conf.explain import explain_validation, fields_at, nearest
from conf.passwords import NO_PASSWORD, with_password, without_secrets
from conf.paths import inner_types, kinds

WRITE = "write settings as name=value, and values with special characters in quotes: 'name=\"VALUE\"'"
FOLDER = Path(__file__).resolve().parent

Config = TypeVar("Config", bound=BaseModel)


def _by_model(tiny: float, pretrained: float, *, _root_: DictConfig) -> float:
    """What ${by_model:A,B} in a YAML file means: A for the tiny policy, B for a model that has been trained before."""
    return tiny if OmegaConf.select(_root_, "model.type") == "tiny" else pretrained


OmegaConf.register_new_resolver("by_model", _by_model, replace=True)


def groups() -> dict[str, list[str]]:
    """Every Hydra group with its options, in alphabetical order."""
    return {
        folder.name: sorted(file.stem for file in folder.glob("*.yaml"))
        for folder in sorted(FOLDER.iterdir())
        if folder.is_dir() and any(folder.glob("*.yaml"))
    }


def load(schema: type[Config], primary: str, overrides: Sequence[str]) -> Config:
    """Composes `primary`.yaml with Hydra overrides and validates it.

    Raises:
        ConfigError: an override cannot be parsed, names an unknown setting, or the schema refuses its value.
    """
    # A text setting takes what was typed, commas included, before anything is taken for several values.
    texts = [_as_text(override, schema) for override in overrides]
    for text in texts:
        _refuse_several(schema, primary, texts, text)
    prepared = [_prepare(text) for text in texts]
    try:
        composed = _compose(primary, prepared)
        missing = sorted(OmegaConf.missing_keys(composed))
        if missing:
            verb, these = ("has", "it") if len(missing) == 1 else ("have", "them")
            shown = " ".join(f"{name}=VALUE" for name in missing)
            raise ConfigError(f"{', '.join(missing)} {verb} no default: give {these} as {shown}")
        values = OmegaConf.to_container(composed, resolve=True)
    except OmegaConfBaseException as error:
        place = f"{error.full_key}: " if error.full_key else ""
        raise ConfigError(place + first_line(error, otherwise="the configuration cannot be composed")) from error
    except HydraException as error:
        raise ConfigError(" ".join(str(error).split())) from error
    assert isinstance(values, dict)
    # Before the schema looks: its refusals repeat the value.
    name = with_password(values)
    if name is not None:
        raise ConfigError(f"{name}: {NO_PASSWORD}")
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise ConfigError(explain_validation(schema, values, error)) from error


def needed(primary: str) -> list[str]:
    """The settings of `primary`.yaml that have no default."""
    return sorted(OmegaConf.missing_keys(_compose(primary, [])))


def experiments() -> dict[str, str]:
    """Every experiment with the first sentence that its file says about it."""
    found = {}
    for name in groups()["experiment"]:
        lines = (FOLDER / "experiment" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
        said = " ".join(line.removeprefix("# ") for line in lines if line.startswith("# ") and "@package" not in line)
        found[name] = said.partition(". ")[0].removesuffix(".")
    return found


def _compose(primary: str, prepared: Sequence[str]) -> Any:
    with initialize_config_dir(config_dir=str(FOLDER), version_base="1.3"):
        return compose(config_name=primary, overrides=list(prepared))


def _refuse_several(schema: type[Config], primary: str, overrides: Sequence[str], override: str) -> None:
    """A setting with several values would be a sweep to Hydra, whose advice (--multirun) does not work here."""
    parsed = _parse(override)
    if not parsed.is_sweep_override():
        return
    key, given = parsed.key_or_group, override.partition("=")[2]
    others = [one for one in overrides if one is not override]
    form = f"{key}=[{given}]"
    try:
        load(schema, primary, [*others, form])
        advice = f"; as a list write '{form}'"
    except ConfigError:
        advice = ""
    raise ConfigError(f"{key}={given} names several values and a run takes one: start one run for each{advice}")


def to_yaml(config: BaseModel) -> str:
    """The resolved configuration, defaults included, as YAML that `load` would accept again."""
    return OmegaConf.to_yaml(OmegaConf.create(config.model_dump(mode="json")))


def quoted(text: str) -> str:
    """A value that Hydra and OmegaConf read as this very text."""
    if re.fullmatch(r"[A-Za-z_/][\w./-]*", text, re.ASCII) and text.lower() not in (
        "true",
        "false",
        "null",
        "nan",
        "inf",
    ):
        return text
    # Hydra: a backslash is one, but before a quote or at the end. OmegaConf: one before ${ makes that plain text.
    plain = re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + "\\${", text)
    return "'" + re.sub(r"(\\*)('|\Z)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), plain) + "'"


def _parse(override: str) -> Override:
    parsed = _parsed(override)
    if parsed is None or not parsed.key_or_group:
        raise ConfigError(f"cannot read {without_secrets(override)!r}: {WRITE}")
    return parsed


def _prepare(override: str) -> str:
    """Checks group options and lets a plain `key=value` set any key of the schema, mentioned in YAML or not."""
    parsed = _parse(override)
    if parsed.package is not None or parsed.key_or_group.partition(".")[0].partition("/")[0] == "hydra":
        raise ConfigError(f"{override.partition('=')[0]} is not a setting: {WRITE}")
    available = groups()
    if parsed.key_or_group in available:
        _check_option(parsed.key_or_group, parsed.value(), available[parsed.key_or_group])
        # A group is always chosen, so that adding an option (+group=option) means choosing it.
        return override.lstrip("+")
    if parsed.is_add() or parsed.is_delete() or parsed.is_force_add():
        return override
    return f"++{override}"


def _parsed(override: str) -> Override | None:
    try:
        return OverridesParser.create().parse_override(override)
    except HydraException:
        return None


def _as_text(override: str, schema: type[BaseModel]) -> str:
    """The override with its value in quotes, where the setting is text and Hydra would not read it as one."""
    found = re.fullmatch(r"(\+{0,2}([A-Za-z_][\w.]*)=)(.*)", override, re.ASCII | re.DOTALL)
    if found is None:
        return override
    start, name, typed = found[1], found[2], found[3].strip()
    fields = fields_at(schema, name.split("."))
    if not fields or not all(kinds(field) for field in fields):
        return override
    annotations = [field.annotation for field in fields]
    if typed.lower() == "null" and any(NoneType in get_args(annotation) for annotation in annotations):
        return override
    if all(map(_is_one_text, annotations)):
        return start + _text(typed)
    if typed.startswith("[") and typed.endswith("]"):
        return f"{start}[{','.join(map(_text, _items(typed[1:-1])))}]"
    return override if typed.startswith("{") else start + _text(typed)


def _is_one_text(annotation: Any) -> bool:
    """Whether a text setting takes no list."""
    return not any(get_origin(inner) is tuple for inner in (annotation, *inner_types(annotation)))


def _text(typed: str) -> str:
    parsed = _parsed(f"name={typed}")
    value = None if parsed is None or parsed.is_sweep_override() else parsed.value()
    # Quotes that do not end are a slip and no part of a name, and what ${...} stands for is never its own text.
    return typed if isinstance(value, str) or typed[:1] in ("'", '"') or "${" in typed else quoted(typed)


def _items(typed: str) -> list[str]:
    """The items of a typed list: commas inside quotes and brackets separate nothing."""
    items, depth, quote = [""], 0, ""
    for place, letter in enumerate(typed):
        if quote:
            quote = "" if letter == quote and typed[place - 1] != "\\" else quote
        elif letter in "\"'" and not items[-1].strip():
            quote = letter
        elif letter in "[({":
            depth += 1
        elif letter in "])}":
            depth -= 1
        elif letter == "," and depth == 0:
            items.append("")
            continue
        items[-1] += letter
    return [item.strip() for item in items] if typed.strip() else []


def _check_option(group: str, option: Any, options: list[str]) -> None:
    if not isinstance(option, str):
        raise ConfigError(f"{group}={option}: choose one of {', '.join(options)}")
    if option not in options:
        raise ConfigError(f"{group}={option} does not exist{nearest(option, options)}; choices: {', '.join(options)}")
