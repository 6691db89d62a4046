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
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from conf.errors import ConfigError, first_line
from conf.explain import explain_validation, nearest

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
    prepared = [_prepare(override) for override in overrides]
    try:
        with initialize_config_dir(config_dir=str(FOLDER), version_base="1.3"):
            composed = compose(config_name=primary, overrides=prepared)
        missing = sorted(OmegaConf.missing_keys(composed))
        if missing:
            raise ConfigError(f"{missing[0]} has no default: give it as {missing[0]}=VALUE")
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


def to_yaml(config: BaseModel) -> str:
    """The resolved configuration, defaults included, as YAML that `load` would accept again."""
    return OmegaConf.to_yaml(OmegaConf.create(config.model_dump(mode="json")))


def _prepare(override: str) -> str:
    """Checks group options and lets a plain `key=value` set any key of the schema, mentioned in YAML or not."""
    try:
        parsed = OverridesParser.create().parse_override(override)
    except HydraException as error:
        raise ConfigError(f"cannot read {override!r}: {WRITE}") from error
    if not parsed.key_or_group:
        raise ConfigError(f"cannot read {override!r}: {WRITE}")
    available = groups()
    if parsed.key_or_group in available:
        _check_option(parsed.key_or_group, parsed.value(), available[parsed.key_or_group])
        return override
    if parsed.is_add() or parsed.is_delete() or parsed.is_force_add():
        return override
    return f"++{override}"


def _check_option(group: str, option: Any, options: list[str]) -> None:
    if not isinstance(option, str):
        raise ConfigError(f"{group}={option}: choose one of {', '.join(options)}")
    if option not in options:
        raise ConfigError(f"{group}={option} does not exist{nearest(option, options)}; choices: {', '.join(options)}")
