"""What is lost together with the learner counts as the learner's loss, whoever is heard of first.

A machine that goes takes rollout workers, reward actors and learner ranks at once. The learner's loss is the one that a
run goes on from, with everything started anew, so it is listened for beside the run's own work: while nobody calls the
learner, while workers wait for weights that went with it, and for a moment after they have been given up.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, NoReturn

from rewards.seat import RewardServerLost
from rollout.errors import RolloutError
from trainer.pipeline.loop import PipelineStalled

CAUSE_S = 10.0
"""How long a loss that may be a consequence waits for the learner's to be heard of."""
CONSEQUENCES = (RolloutError, RewardServerLost, PipelineStalled)


async def unless_lost(
    work: Coroutine[Any, Any, None], watch: Coroutine[Any, Any, NoReturn], *, cause_s: float = CAUSE_S
) -> None:
    """Does `work`; raises what `watch` raises, and cancels `work`, as soon as the learner is lost.

    `watch` ends by raising only. What `work` raises for a reason of its own is raised, those of CONSEQUENCES after
    `cause_s` seconds.
    """
    task, lost = asyncio.ensure_future(work), asyncio.ensure_future(watch)
    try:
        await asyncio.wait({task, lost}, return_when=asyncio.FIRST_COMPLETED)
        if task.done() and isinstance(task.exception(), CONSEQUENCES):
            await asyncio.wait({lost}, timeout=cause_s)
        if lost.done() and not (task.done() and task.exception() is None):
            lost.result()
        task.result()
    finally:
        for each in (task, lost):
            each.cancel()
        await asyncio.gather(task, lost, return_exceptions=True)
