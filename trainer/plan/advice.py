"""What would make an impossible plan possible: the smallest change of settings that the estimates accept.

Guarantees: what is advised was tried, on the same machine and by the same sums; it is a valid configuration. Smallest
means: settings that cost only speed come before those that take more devices, and these before those that change what
is learned. Does not promise that nothing smaller exists: each setting is tried at a few values.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

from omegaconf import OmegaConf
from pydantic import ValidationError

from conf.load import FOLDER
from conf.schema.root import TrainConfig
from conf.schema.stages import ClusterConfig
from rollout.shape import ModelShape
from trainer.plan.build import Plan, build, sequences_held
from trainer.plan.layout import GIB, Machine, PlanImpossible

LARGEST_GIB = 1024
_MANY = 1024
_ENDLESS: dict[str, Any] = {"gpu_bytes": float(LARGEST_GIB * GIB), "gpus_per_node": _MANY}
"""Devices that lack nothing, so that a plan that is impossible with them lacks host memory."""
MOST_LEVERS = 4
"""Settings that one advice changes at most."""
MachineOf = Callable[[TrainConfig], Machine]
Change = Mapping[str, Any]
"""Dotted settings and their values; `cluster` with a name chooses that option of the group."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lever:
    weight: int
    """How much it changes."""
    changes: tuple[Change, ...]
    """From the gentlest to the strongest, each enough by itself."""


def build_or_advise(config: TrainConfig, shape: ModelShape, machine_of: MachineOf) -> Plan:
    """The plan. Raises PlanImpossible with the sums and what would fit."""
    machine = machine_of(config)
    try:
        return build(config, shape, machine)
    except PlanImpossible as error:
        found = advice(config, shape, machine_of)
        fits = (
            f"it fits with {' '.join(_shown(found))}"
            if found
            else "none of the changes that were tried fits this machine"
        )
        least = _least_device(config, shape, machine)
        larger = f"; as it is, it needs a device of {least} GiB" if least else ""
        raise PlanImpossible(f"{error}; {fits}{larger}") from error


def advice(config: TrainConfig, shape: ModelShape, machine_of: MachineOf) -> dict[str, Any]:
    """The smallest change that fits; empty when none of those tried does."""
    for levers in _choices(_levers(config, shape, machine_of)):
        if _fits(config, shape, machine_of, _together(levers, [len(one.changes) - 1 for one in levers])) is None:
            continue
        return _gentlest(config, shape, machine_of, levers)
    return {}


def _gentlest(
    config: TrainConfig, shape: ModelShape, machine_of: MachineOf, levers: tuple[Lever, ...]
) -> dict[str, Any]:
    """Strengthens the settings in turn, one value at a time, until the plan fits, as the strongest values do; then
    takes back what was not needed."""
    places = [0] * len(levers)
    for turn in itertools.cycle(range(len(levers))):
        if _fits(config, shape, machine_of, _together(levers, places)) is not None:
            break
        if places[turn] < len(levers[turn].changes) - 1:
            places[turn] += 1
    for turn in range(len(levers)):
        while places[turn] > 0:
            gentler = [place - (number == turn) for number, place in enumerate(places)]
            if _fits(config, shape, machine_of, _together(levers, gentler)) is None:
                break
            places = gentler
    return _together(levers, places)


def _choices(levers: list[Lever]) -> Iterator[tuple[Lever, ...]]:
    """Combinations of levers, those that change least first."""
    found = [chosen for count in range(1, MOST_LEVERS + 1) for chosen in itertools.combinations(levers, count)]
    yield from sorted(found, key=lambda chosen: sum(one.weight for one in chosen))


def _levers(config: TrainConfig, shape: ModelShape, machine_of: MachineOf) -> list[Lever]:
    gpu = config.cluster.accelerator == "gpu"
    learner, engine, server = config.learner, config.rollout.engine, config.reward.server
    budget = config.prompt.max_tokens + config.rollout.sampling.max_tokens
    tokens = [v for v in _halves(learner.micro_batch_tokens) if v >= budget]
    found = [
        Lever(weight=1, changes=tuple({"learner.micro_batch_tokens": v} for v in tokens)),
        Lever(weight=1, changes=() if learner.gradient_checkpointing else ({"learner.gradient_checkpointing": True},)),
    ]
    if gpu:
        chunks = [v for v in _halves(learner.logprob_chunk_tokens) if v >= 64]
        found.append(Lever(weight=2, changes=tuple({"learner.logprob_chunk_tokens": v} for v in chunks)))
        shares = _shares(config, shape, machine_of)
        found.append(Lever(weight=1, changes=tuple({"rollout.engine.gpu_memory_utilization": v} for v in shares)))
        found += [*_more_devices(config, machine_of), Lever(weight=12, changes=_adapters(config))]
        found += _fewer_devices(config, shape, machine_of)
    else:
        caches = [v for v in (engine.kv_cache_gib / 2**n for n in range(1, 6)) if v >= 0.05]
        found += [
            Lever(weight=1, changes=tuple({"rollout.engine.kv_cache_gib": v} for v in caches)),
            Lever(weight=3, changes=tuple({"rollout.workers": n} for n in _down(config.rollout.workers))),
        ]
    if not _builds(config, shape, dataclasses.replace(machine_of(config), **_ENDLESS)):
        found += [
            Lever(weight=2, changes=tuple({"reward.server.executors": n} for n in _down(server.executors))),
            Lever(weight=2, changes=tuple({"reward.server.actors": n} for n in _down(server.actors))),
        ]
    return [one for one in found if one.changes]


def _more_devices(config: TrainConfig, machine_of: MachineOf) -> list[Lever]:
    """Devices of their own, engines over several devices, and ranks that shard what they hold."""
    found = []
    learner, workers = config.learner, config.rollout.workers
    width, least = config.rollout.engine.tensor_parallel_size, config.algo.updates_per_step
    if config.cluster.colocate and config.cluster.address is None:
        found.append(Lever(weight=3, changes=({"cluster": "split"},)))
        config = applied(config, {"cluster": "split"})
    machine = machine_of(config)
    devices = math.inf if machine.nodes is None else machine.nodes * machine.gpus_per_node
    wider = [n for n in (2, 4, 8) if n > width and workers * n + learner.ranks <= devices]
    found.append(Lever(weight=4, changes=tuple({"rollout.engine.tensor_parallel_size": n} for n in wider)))
    sharded: list[Change] = []
    for count in range(learner.ranks + 1, 9):
        if workers * width + count > devices:
            break
        prompts = math.ceil(config.pipeline.prompts_per_step / (count * least)) * count * least
        change: dict[str, Any] = {"learner.ranks": count}
        if learner.zero_stage < 3:
            change["learner.zero_stage"] = 3
        if prompts != config.pipeline.prompts_per_step:
            change["pipeline.prompts_per_step"] = prompts
        sharded.append(change)
    found.append(Lever(weight=5, changes=tuple(sharded)))
    return found


def _fewer_devices(config: TrainConfig, shape: ModelShape, machine_of: MachineOf) -> list[Lever]:
    """For a machine with too few devices, whatever their memory, and for engines over a number that cannot be."""
    width = config.rollout.engine.tensor_parallel_size
    if shape.heads % width:
        narrower = max(number for number in range(1, width) if shape.heads % number == 0)
        return [Lever(weight=1, changes=({"rollout.engine.tensor_parallel_size": narrower},))]
    machine, workers, ranks = machine_of(config), config.rollout.workers, config.learner.ranks
    if _builds(config, shape, dataclasses.replace(machine, gpu_bytes=_ENDLESS["gpu_bytes"])):
        return []
    found = [
        Lever(weight=3, changes=tuple({"rollout.workers": n} for n in _down(workers))),
        Lever(weight=4, changes=tuple({"learner.ranks": n} for n in _down(ranks))),
    ]
    if not config.cluster.colocate and config.cluster.address is None:
        found.append(Lever(weight=3, changes=({"cluster": "single_gpu"},)))
    return found


def _adapters(config: TrainConfig) -> tuple[Change, ...]:
    return () if config.learner.lora.rank else ({"learner.lora.rank": 32},)


def _shares(config: TrainConfig, shape: ModelShape, machine_of: MachineOf) -> list[float]:
    """Shares of a device for the engine, with which it still holds a group at once, or else a sequence: smaller ones,
    or larger ones where the one that is set holds nothing."""
    engine, machine = config.rollout.engine, machine_of(config)

    def held(share: float) -> int:
        changed = engine.model_copy(update={"gpu_memory_utilization": share})
        rollout = config.rollout.model_copy(update={"engine": changed})
        try:
            return sequences_held(config.model_copy(update={"rollout": rollout}), shape, machine)
        except PlanImpossible:
            return 0

    steps = [round(0.05 * n, 2) for n in range(1, 20)]
    now = engine.gpu_memory_utilization
    if not held(now):
        return [share for share in steps if share > now and held(share)]
    below = [share for share in reversed(steps) if share < now]
    whole = min(config.rollout.group_size, held(now))
    return [share for share in below if held(share) >= whole] or [share for share in below if held(share)]


def _halves(value: int) -> list[int]:
    return [value // 2**n for n in range(1, 12) if value // 2**n > 0]


def _down(count: int) -> list[int]:
    return list(range(count - 1, 0, -1)) if count <= 16 else _halves(count)


def _together(levers: tuple[Lever, ...], places: list[int]) -> dict[str, Any]:
    changes = [one.changes[place] for one, place in zip(levers, places, strict=True)]
    return {name: value for change in changes for name, value in change.items()}


def _builds(config: TrainConfig, shape: ModelShape, machine: Machine) -> bool:
    try:
        build(config, shape, machine)
    except PlanImpossible:
        return False
    return True


def _fits(config: TrainConfig, shape: ModelShape, machine_of: MachineOf, change: Change) -> Plan | None:
    try:
        changed = applied(config, change)
        return build(changed, shape, machine_of(changed))
    except (PlanImpossible, ValidationError):
        return None


def applied(config: TrainConfig, change: Change) -> TrainConfig:
    """The configuration with the change. Raises ValidationError for one that contradicts itself."""
    values = config.model_dump(mode="json")
    for name, value in change.items():
        if name == "cluster":
            values["cluster"] |= _option(value)
            continue
        *sections, last = name.split(".")
        here = values
        for section in sections:
            here = here[section]
        here[last] = value
    return TrainConfig.model_validate(values)


@cache
def _option(name: str) -> dict[str, Any]:
    """What choosing an option of `cluster` sets, and sets back of what another option had set."""
    options = {file.stem: OmegaConf.to_container(OmegaConf.load(file)) for file in (FOLDER / "cluster").glob("*.yaml")}
    ours = {key for option in options.values() for key in cast(dict[str, Any], option)}
    defaults = ClusterConfig.model_validate(options[name]).model_dump(mode="json")
    return {key: defaults[key] for key in ours}


def _shown(change: Change) -> list[str]:
    return [f"{name}={str(value).lower() if isinstance(value, bool) else value}" for name, value in change.items()]


def _least_device(config: TrainConfig, shape: ModelShape, machine: Machine) -> int | None:
    """GiB of the smallest device that holds the plan as it is; None where devices are not what is missing."""

    def fits(gib: int) -> bool:
        return _builds(config, shape, dataclasses.replace(machine, gpu_bytes=float(gib * GIB)))

    if config.cluster.accelerator != "gpu" or not fits(LARGEST_GIB):
        return None
    low, high = 0, LARGEST_GIB
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high
