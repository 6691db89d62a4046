"""Which actor where: a first fit of the actors' demands on machines. Pure.

Ray places the actors by the same demands when the run starts; this shows one way in which they fit, or that none was
found. Ranks come first, so that they lie together; fractions share a device, several devices lie in one machine.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from conf.errors import QuorumError

GIB = 2**30
_EXACT = 1e-9
"""Fractions of a device add up to one within this."""


class PlanImpossible(QuorumError):
    """The actors do not fit; the message shows the sums."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Demand:
    """What one actor needs."""

    name: str
    gpus: float
    gpu_parts: tuple[tuple[str, float], ...]
    """(what, bytes) on each of its devices."""
    host_parts: tuple[tuple[str, float], ...]
    remedy: str
    """Settings that lower the need of memory."""
    host_remedy: str = ""
    """What helps where host memory is what lacks; empty: `remedy` does."""
    fewer: tuple[str, ...] = ()
    """Settings that can lower the number of devices which all actors of its kind ask for."""
    narrower: str = ""
    """The setting that says how many devices it takes by itself."""

    @property
    def gpu_bytes(self) -> float:
        return sum(size for _, size in self.gpu_parts)

    @property
    def host_bytes(self) -> float:
        return sum(size for _, size in self.host_parts)


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    nodes: int | None
    """None: as many as needed."""
    gpus_per_node: int
    gpu_bytes: float
    host_bytes: float
    source: str
    """Where the numbers come from, for the reader."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    demand: Demand
    node: int
    devices: tuple[int, ...]


@dataclass(slots=True)
class _Slot:
    share: float = 1.0
    free: float = 0.0


class _Node:
    def __init__(self, machine: Machine) -> None:
        self.host = machine.host_bytes
        self.devices = [_Slot(free=machine.gpu_bytes) for _ in range(machine.gpus_per_node)]

    def take(self, demand: Demand) -> tuple[int, ...] | None:
        """The devices that the demand gets; None when it does not fit here."""
        share = min(demand.gpus, 1.0)
        fitting = [
            number
            for number, slot in enumerate(self.devices)
            if slot.share + _EXACT >= share and slot.free >= demand.gpu_bytes
        ]
        wanted = 0 if demand.gpus == 0 else max(1, round(demand.gpus))
        if len(fitting) < wanted or self.host < demand.host_bytes:
            return None
        chosen = tuple(fitting[:wanted])
        for number in chosen:
            self.devices[number].share -= share
            self.devices[number].free -= demand.gpu_bytes
        self.host -= demand.host_bytes
        return chosen

    def lacks_devices(self, demand: Demand) -> bool:
        """Whether too few devices have a share left for the demand, whatever their memory."""
        share = min(demand.gpus, 1.0)
        left = sum(slot.share + _EXACT >= share for slot in self.devices)
        return left < (0 if demand.gpus == 0 else max(1, round(demand.gpus)))


def place(demands: Sequence[Demand], machine: Machine) -> list[Place]:
    """A place for each. Raises PlanImpossible with the arithmetic."""
    for demand in demands:
        _refuse_too_large(demand, machine)
    nodes: list[_Node] = []
    places: list[Place] = []
    for demand in demands:
        for number, node in enumerate(nodes):
            devices = node.take(demand)
            if devices is not None:
                places.append(Place(demand=demand, node=number, devices=devices))
                break
        else:
            if machine.nodes is not None and len(nodes) == machine.nodes:
                taken = all(node.lacks_devices(demand) for node in nodes)
                host = not taken and all(node.host < demand.host_bytes for node in nodes)
                raise PlanImpossible(_does_not_fit(demand, demands, machine, taken=taken, host=host))
            nodes.append(_Node(machine))
            devices = nodes[-1].take(demand)
            assert devices is not None, "a demand that fits no empty machine was refused before"
            places.append(Place(demand=demand, node=len(nodes) - 1, devices=devices))
    return places


def _refuse_too_large(demand: Demand, machine: Machine) -> None:
    if demand.gpus > machine.gpus_per_node:
        raise PlanImpossible(
            f"{demand.name} asks for {demand.gpus:g} devices in one machine, which has {machine.gpus_per_node}"
            f" ({machine.source}): lower {demand.narrower} to {machine.gpus_per_node} at most"
        )
    if demand.gpus and demand.gpu_bytes > machine.gpu_bytes:
        raise PlanImpossible(
            f"{demand.name} needs {_sum(demand.gpu_parts)} of device memory, and a device has "
            f"{machine.gpu_bytes / GIB:.1f} ({machine.source}): {demand.remedy}"
        )
    if demand.host_bytes > machine.host_bytes:
        raise PlanImpossible(
            f"{demand.name} needs {_sum(demand.host_parts)} of host memory, and the machine has "
            f"{machine.host_bytes / GIB:.1f} ({machine.source}): {demand.host_remedy or demand.remedy}"
        )


def _does_not_fit(demand: Demand, demands: Sequence[Demand], machine: Machine, *, taken: bool, host: bool) -> str:
    """`taken`: the others have all the devices that it could have. `host`: they have the host memory."""
    asked = sum(one.gpus for one in demands)
    has = (machine.nodes or 0) * machine.gpus_per_node
    device = max(one.gpu_bytes for one in demands) if asked else 0.0
    memory = sum(one.host_bytes for one in demands)
    parts = [f"the actors ask for {asked:g} devices of {has}"] if asked else []
    if asked:
        parts.append(f"at most {device / GIB:.1f} GiB on a device of {machine.gpu_bytes / GIB:.1f}")
        shared = [one for one in demands if 0 < one.gpus < 1]
        if shared:
            kinds = dict.fromkeys((one.name.split(" ")[0], one.gpu_bytes) for one in shared)
            sums = " + ".join(f"{name} {size / GIB:.1f}" for name, size in kinds)
            parts.append(f"on a shared device {sums} = {sum(size for _, size in kinds) / GIB:.1f} GiB")
    parts.append(f"{memory / GIB:.1f} GiB of {(machine.nodes or 1) * machine.host_bytes / GIB:.1f} GiB host memory")
    remedy = demand.host_remedy if host and demand.host_remedy else demand.remedy
    if taken:
        levers = dict.fromkeys(name for one in demands for name in one.fewer)
        fewer = f"lower {' or '.join(levers)} until they ask for {has}" if levers else "choose cluster=single_gpu"
        remedy = f"{fewer}, or raise cluster.nodes or cluster.gpus_per_node where there are more"
    return f"{demand.name} finds no place: {', '.join(parts)} ({machine.source}): {remedy}"


def _sum(parts: Sequence[tuple[str, float]]) -> str:
    total = sum(size for _, size in parts)
    return f"{total / GIB:.1f} GiB ({' + '.join(f'{name} {size / GIB:.1f}' for name, size in parts if size)})"
