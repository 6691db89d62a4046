"""All faults by name."""

import psutil

from conf.schema.chaos import FaultName
from measure.chaos.disk import full_disk
from measure.chaos.divergence import infinite_gradients
from measure.chaos.kills import (
    HANG_S,
    KILLED,
    LEFT,
    OUTAGE_S,
    beyond_its_restart,
    goes_back,
    missed_update,
    of_actor,
    of_executors,
    of_the_driver,
    outage,
    replaced,
    told,
    within,
)
from measure.chaos.nodes import lost_node
from measure.chaos.scene import Opening
from measure.chaos.segment import half_applied

_KILL = psutil.Process.kill
_STOP = psutil.Process.suspend
_WORKER, _SCORER, _LEARNER = of_actor("RolloutWorker"), of_actor("RewardActor"), of_actor("LearnerActor")
_SOON = ("reward.server.timeout_s=5", "reward.execution.budget.wall_s=4")
"""A reward actor and an executor count as hung early."""
_WORKER_LOST, _SCORER_LOST = "groups to sample again", "the reward actor was lost"
_RESUME_S, _LEAVE_S = 60.0, 30.0

FAULTS: dict[FaultName, Opening] = {
    "rollout_worker_dies": told(_WORKER, _KILL, _WORKER_LOST, allowed_s=beyond_its_restart(10.0)),
    "rollout_worker_hangs": told(_WORKER, _STOP, _WORKER_LOST, [f"rollout.group_timeout_s={HANG_S}"]),
    "rollout_node_lost": lost_node,
    "weight_update_lost": missed_update(),
    "weight_update_half_applied": half_applied,
    "reward_actor_dies": told(_SCORER, _KILL, _SCORER_LOST),
    "reward_actor_hangs": told(_SCORER, _STOP, _SCORER_LOST, _SOON),
    "reward_server_gone": outage(OUTAGE_S),
    "executor_dies": replaced(of_executors, _KILL, allowed_s=within(2.0)),
    "executor_hangs": replaced(of_executors, _STOP, _SOON[1:]),
    "learner_dies": goes_back([_LEARNER], _KILL),
    "learner_and_worker_die": goes_back([_WORKER, _LEARNER], _KILL),
    "gradients_not_finite": infinite_gradients,
    "driver_dies": of_the_driver(_KILL, KILLED, within(_RESUME_S)),
    "sigterm": of_the_driver(psutil.Process.terminate, LEFT, within(_LEAVE_S + _RESUME_S)),
    "disk_full_stops": full_disk(stops=True),
    "disk_full_goes_on": full_disk(stops=False),
}

IN_PASSING: dict[FaultName, Opening] = {
    name: FAULTS[name]
    for name in ("rollout_worker_dies", "reward_actor_dies", "executor_dies", "executor_hangs", "learner_dies")
}
"""Faults that one long run can meet again and again."""
