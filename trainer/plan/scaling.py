"""How the cost of a step changes with the number of devices."""

import dataclasses
import math
from dataclasses import dataclass

from conf.schema.root import TrainConfig
from rollout.shape import ModelShape
from trainer.plan.build import (
    device_of,
    learner_of,
    rank_demands,
    rollout_of,
    sequences_held,
    work_of,
    worker_demands,
)
from trainer.plan.estimate import StepCost, step_cost
from trainer.plan.layout import Machine, PlanImpossible, place


@dataclass(frozen=True, kw_only=True, slots=True)
class Scaled:
    """One row of the table: the best division of `devices` that fits."""

    devices: int
    ranks: int
    workers: int
    prompts: int
    cost: StepCost

    @property
    def groups_per_s(self) -> float:
        return self.prompts / self.cost.step_s


def scaled(config: TrainConfig, shape: ModelShape, machine: Machine, largest: int = 1024) -> list[Scaled]:
    """Devices 1, 2, 4 ... `largest`, each with the division between learner and rollout that does most groups a second.

    prompts_per_step grows to a multiple of the ranks where they would have less than one each: a larger batch learns
    differently, and this does not say how. Numbers of devices for which no division fits are left out.
    """
    found = (_best(config, shape, machine, 2**power) for power in range(int(math.log2(largest)) + 1))
    return [row for row in found if row is not None]


def _best(config: TrainConfig, shape: ModelShape, machine: Machine, devices: int) -> Scaled | None:
    width = config.rollout.engine.tensor_parallel_size
    divisions = (
        [(1, 1)] if devices == 1 else [(2**n, (devices - 2**n) // width) for n in range(int(math.log2(devices)))]
    )
    rows = [
        row
        for ranks, workers in divisions
        if workers >= 1 and (row := _division(config, shape, machine, devices, ranks, workers)) is not None
    ]
    return max(rows, key=lambda row: row.groups_per_s, default=None)


def _division(
    config: TrainConfig, shape: ModelShape, machine: Machine, devices: int, ranks: int, workers: int
) -> Scaled | None:
    least = ranks * config.algo.updates_per_step
    prompts = math.ceil(config.pipeline.prompts_per_step / least) * least
    shared = devices == 1
    share = 0.5 if shared else 1.0
    divided = config.model_copy(
        update={
            "learner": config.learner.model_copy(update={"ranks": ranks}),
            "rollout": config.rollout.model_copy(update={"workers": workers}),
            "pipeline": config.pipeline.model_copy(update={"prompts_per_step": prompts}),
            "cluster": config.cluster.model_copy(
                update={"colocate": shared, "rollout_gpus": share, "learner_gpus": share}
            ),
        }
    )
    # All ranks are alike, and so are all workers: one of each fits its device, or none does.
    pair = [rank_demands(divided, shape)[0], worker_demands(divided, shape, machine)[0]]
    alone = dataclasses.replace(machine, nodes=1, gpus_per_node=1 if shared else max(2, machine.gpus_per_node))
    try:
        place(pair, alone)
        fits = sequences_held(divided, shape, machine)
    except PlanImpossible:
        return None
    cost = step_cost(
        shape,
        learner_of(divided),
        rollout_of(divided),
        work_of(divided),
        device_of(divided),
        fits=fits,
        devices=devices,
    )
    return Scaled(devices=devices, ranks=ranks, workers=workers, prompts=prompts, cost=cost)
