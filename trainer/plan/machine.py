"""The machine that a plan is made for: as the settings assume it, or as this one is."""

import subprocess
from pathlib import Path

import psutil

from conf.schema.root import TrainConfig
from trainer.plan.layout import GIB, Machine, PlanImpossible

CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
QUERY = ("nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits")
QUERY_S = 30.0


def assumed(config: TrainConfig) -> Machine:
    """The machine of the settings; for actors on the CPU and no cluster, this one."""
    if config.cluster.accelerator == "cpu" and config.cluster.address is None:
        return here(config)
    return Machine(
        nodes=config.cluster.nodes or (1 if config.cluster.address is None else None),
        gpus_per_node=config.cluster.gpus_per_node if config.cluster.accelerator == "gpu" else 0,
        gpu_bytes=config.plan.gpu_memory_gib * GIB,
        host_bytes=config.plan.node_memory_gib * GIB,
        source="assumed: cluster.nodes, cluster.gpus_per_node, plan.gpu_memory_gib, plan.node_memory_gib",
    )


def here(config: TrainConfig) -> Machine:
    """This machine. Raises PlanImpossible where cluster.accelerator=gpu and no device is found."""
    devices = _devices() if config.cluster.accelerator == "gpu" else []
    if config.cluster.accelerator == "gpu" and not devices:
        raise PlanImpossible("cluster.accelerator=gpu, but nvidia-smi finds no device here: choose cluster=local")
    return Machine(
        nodes=1,
        gpus_per_node=len(devices),
        gpu_bytes=min(devices, default=0.0),
        host_bytes=float(host_memory()),
        source="this machine",
    )


def host_memory() -> int:
    """Bytes that this process may use: the machine's memory, or its container's limit."""
    total = int(psutil.virtual_memory().total)
    limit = CGROUP_LIMIT.read_text().strip() if CGROUP_LIMIT.is_file() else "max"
    return total if limit == "max" else min(total, int(limit))


def _devices() -> list[float]:
    """Memory of each device, bytes."""
    try:
        found = subprocess.run(QUERY, capture_output=True, text=True, timeout=QUERY_S, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [float(line) * 2**20 for line in found.split()]
