"""A job's settings as the cluster must see them: whole, and with paths that mean the same on every machine."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from conf.errors import ConfigError
from conf.load import load
from conf.passwords import NO_PASSWORD
from conf.schema.benchmark import BenchmarkConfig, BirdBenchmark, DemoBenchmark, SpiderBenchmark
from conf.schema.root import TrainConfig

PATHS = ("run.dir", "run.index", "warmup.cache", "output", "predictions", "reranker")
DATA_PATHS = {
    "demo": ("data.root",),
    "spider": ("data.root",),
    "bird": ("data.root",),
    "jsonl": ("data.train", "data.heldout", "data.databases"),
}
"""Settings that are paths of their own, by data.type; the others lie below these."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """Something that can be submitted."""

    module: str
    schema: type[BaseModel]
    primary: str


KINDS = {
    ("train",): Kind(module="trainer", schema=TrainConfig, primary="train"),
    ("bench", "spider"): Kind(module="benchmarks.spider", schema=SpiderBenchmark, primary="benchmark_spider"),
    ("bench", "bird"): Kind(module="benchmarks.bird", schema=BirdBenchmark, primary="benchmark_bird"),
    ("bench", "demo"): Kind(module="benchmarks.demo", schema=DemoBenchmark, primary="benchmark_demo"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class JobSettings:
    arguments: tuple[str, ...]
    """Of the module's command line."""
    name: str
    folder: str
    """Where the results go."""
    cpus: int
    """CPUs that its actors ask of Ray."""


def take_address(overrides: Sequence[str]) -> tuple[str | None, list[str]]:
    """Splits cluster.address=URL off. Raises ConfigError for an address that takes no jobs."""
    address, others = None, []
    for override in overrides:
        name, _, value = override.lstrip("+").partition("=")
        if name == "cluster.address":
            address = value
        else:
            others.append(override)
    if address is not None and "@" in address:
        raise ConfigError(f"cluster.address: {NO_PASSWORD}")
    if address is not None and not address.startswith(("http://", "https://")):
        raise ConfigError(
            f"cluster.address={address}: jobs are submitted to the head's dashboard, such as http://HEAD:8265"
        )
    return address, others


def prepare(kind: Kind, overrides: Sequence[str], base: Path | None) -> JobSettings:
    """Validates the settings here and completes them; relative paths are taken from `base`. Raises ConfigError."""
    inside = [*overrides, "++cluster.address=auto"]
    config = load(kind.schema, kind.primary, inside)
    relative = _relative_paths(config)
    if base is None and relative:
        raise ConfigError(
            f"{', '.join(relative)}: a relative path means another place on each machine: make it absolute, "
            "or give --base FOLDER, a folder that every machine of the cluster sees"
        )
    arguments = [*inside, *(f"++{name}={_quoted(str(base / path))}" for name, path in relative.items() if base)]
    final = load(kind.schema, kind.primary, arguments)
    return JobSettings(arguments=tuple(arguments), name=_name(final), folder=_folder(final), cpus=_cpus(final))


def _relative_paths(config: BaseModel) -> dict[str, str]:
    values = config.model_dump(mode="json")
    names = [*PATHS, *DATA_PATHS[values["data"]["type"]]]
    found = {name: _at(values, name) for name in names}
    model = values["model"].get("path")
    # A name of the model hub looks like a relative path, but is no folder here.
    if model is not None and Path(model).is_dir():
        found["model.path"] = model
    return {name: path for name, path in found.items() if path is not None and not Path(path).is_absolute()}


def _at(values: dict[str, Any], name: str) -> str | None:
    here: Any = values
    for part in name.split("."):
        here = here.get(part) if isinstance(here, dict) else None
    return here


def _name(config: BaseModel) -> str:
    if isinstance(config, TrainConfig):
        return config.run.name
    assert isinstance(config, BenchmarkConfig)
    return Path(config.output).name


def _folder(config: BaseModel) -> str:
    if isinstance(config, TrainConfig):
        return str(Path(config.run.dir) / config.run.name)
    assert isinstance(config, BenchmarkConfig)
    return config.output


def _cpus(config: BaseModel) -> int:
    if isinstance(config, TrainConfig):
        rollout, learner = config.rollout, config.learner
        if config.cluster.accelerator == "gpu":
            return rollout.workers + learner.ranks
        return rollout.workers * rollout.engine.threads + learner.ranks * learner.threads
    assert isinstance(config, BenchmarkConfig)
    return config.workers * (1 if config.cluster.accelerator == "gpu" else config.engine.threads)


def _quoted(value: str) -> str:
    """A value that Hydra reads as this very string."""
    if re.fullmatch(r"[\w./:@%+-]+", value):
        return value
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
