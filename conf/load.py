"""Compose -> resolve -> validate: from command-line overrides to a frozen configuration.

Hydra composes the YAML groups of this folder, OmegaConf resolves interpolations, and the pydantic schema validates the
result. The YAML files hold choices only; defaults live in the schema, so `--cfg job` prints both. Every failure is a
ConfigError that names the setting, what is wrong with it and the nearest valid choice.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from conf.errors import ConfigError, first_line
from conf.explain import explain_validation, nearest

WRITE = "write settings as name=value, and values with special characters in quotes: 'name=\"VALUE\"'"
FOLDER = Path(__file__).resolve().parent

Config = TypeVar("Config", bound=BaseModel)


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
    for override in overrides:
        _refuse_several(schema, primary, overrides, override)
    prepared = [_prepare(override) for override in overrides]
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
    advice = ""
    for kind, form in (("a list", f"{key}=[{given}]"), ("one text", f'{key}="{given}"')):
        try:
            load(schema, primary, [*others, form])
        except ConfigError:
            continue
        advice += f"; as {kind} write '{form}'"
    raise ConfigError(f"{key}={given} names several values and a run takes one: start one run for each{advice}")


def to_yaml(config: BaseModel) -> str:
    """The resolved configuration, defaults included, as YAML that `load` would accept again."""
    return OmegaConf.to_yaml(OmegaConf.create(config.model_dump(mode="json")))


def _parse(override: str) -> Override:
    try:
        parsed = OverridesParser.create().parse_override(override)
    except HydraException as error:
        raise ConfigError(f"cannot read {override!r}: {WRITE}") from error
    if not parsed.key_or_group:
        raise ConfigError(f"cannot read {override!r}: {WRITE}")
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


def _check_option(group: str, option: Any, options: list[str]) -> None:
    if not isinstance(option, str):
        raise ConfigError(f"{group}={option}: choose one of {', '.join(options)}")
    if option not in options:
        raise ConfigError(f"{group}={option} does not exist{nearest(option, options)}; choices: {', '.join(options)}")
