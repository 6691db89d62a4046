"""A job's settings as the cluster must see them: whole, and with paths that mean the same on every machine."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from conf.errors import ConfigError
from conf.load import load, quoted
from conf.passwords import NO_PASSWORD
from conf.paths import relative_paths
from conf.schema.benchmark import BenchmarkConfig, BirdBenchmark, DemoBenchmark, SpiderBenchmark
from conf.schema.root import TrainConfig


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
            address = None if value.lower() == "null" else unquoted(value)
        else:
            others.append(override)
    if address is not None and "@" in address:
        raise ConfigError(f"cluster.address: {NO_PASSWORD}")
    if address is not None and not address.startswith(("http://", "https://")):
        raise ConfigError(
            f"cluster.address={address}: jobs are submitted to the head's dashboard, such as http://HEAD:8265"
        )
    return address, others


def unquoted(value: str) -> str:
    """Without the quotes in which Hydra takes any value."""
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" else value


def prepare(kind: Kind, overrides: Sequence[str], base: Path | None) -> JobSettings:
    """Validates the settings here and completes them; relative paths are taken from `base`. Raises ConfigError."""
    inside = [*overrides, "++cluster.address=auto"]
    config = load(kind.schema, kind.primary, inside)
    relative = relative_paths(config, base or Path.cwd())
    if base is None and relative:
        raise ConfigError(
            f"{', '.join(relative)}: a relative path means another place on each machine: make it absolute, "
            "or give --base FOLDER, a folder that every machine of the cluster sees"
        )
    # The job's working directory is its package: what was relative is said again.
    arguments = [*inside, *(f"++{name}={_written(path)}" for name, path in relative.items())]
    final = load(kind.schema, kind.primary, arguments)
    return JobSettings(arguments=tuple(arguments), name=_name(final), folder=_folder(final), cpus=_cpus(final))


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


def _written(path: str | tuple[str, ...]) -> str:
    return quoted(path) if isinstance(path, str) else f"[{','.join(map(quoted, path))}]"
