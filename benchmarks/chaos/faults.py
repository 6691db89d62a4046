"""All faults by name."""

import psutil

from benchmarks.chaos.disk import full_disk
from benchmarks.chaos.divergence import infinite_gradients
from benchmarks.chaos.kills import (
    HANG_S,
    KILLED,
    LEFT,
    OUTAGE_S,
    goes_back,
    missed_update,
    of_actor,
    of_executors,
    of_the_driver,
    outage,
    replaced,
)
from benchmarks.chaos.nodes import lost_node
from benchmarks.chaos.scene import Opening
from benchmarks.chaos.segment import half_applied
from conf.schema.chaos import FaultName

_KILL = psutil.Process.kill
_STOP = psutil.Process.suspend
_WORKER, _SCORER, _LEARNER = of_actor("RolloutWorker"), of_actor("RewardActor"), of_actor("LearnerActor")
_SOON = ("reward.server.timeout_s=5", "reward.execution.budget.wall_s=4")
"""A reward actor and an executor count as hung early."""

FAULTS: dict[FaultName, Opening] = {
    "rollout_worker_dies": replaced(_WORKER, _KILL),
    "rollout_worker_hangs": replaced(_WORKER, _STOP, [f"rollout.group_timeout_s={HANG_S}"]),
    "rollout_node_lost": lost_node,
    "weight_update_lost": missed_update(),
    "weight_update_half_applied": half_applied,
    "reward_actor_dies": replaced(_SCORER, _KILL),
    "reward_actor_hangs": replaced(_SCORER, _STOP, _SOON),
    "reward_server_gone": outage(OUTAGE_S),
    "executor_dies": replaced(of_executors, _KILL),
    "executor_hangs": replaced(of_executors, _STOP, _SOON[1:]),
    "learner_dies": goes_back(_LEARNER, _KILL),
    "gradients_not_finite": infinite_gradients,
    "driver_dies": of_the_driver(_KILL, KILLED),
    "sigterm": of_the_driver(psutil.Process.terminate, LEFT),
    "disk_full_stops": full_disk(stops=True),
    "disk_full_goes_on": full_disk(stops=False),
}

IN_PASSING: dict[FaultName, Opening] = {
    name: FAULTS[name]
    for name in ("rollout_worker_dies", "reward_actor_dies", "executor_dies", "executor_hangs", "learner_dies")
}
"""Faults that one long run can meet again and again."""
