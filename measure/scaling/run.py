"""One simulated run: the real buffer, loop, producer and batcher, with stand-ins for everything that takes time."""

import math
import time
from dataclasses import dataclass, field
from statistics import fmean

from conf.schema.root import TrainConfig
from measure.scaling.clock import simulate
from measure.scaling.cores import Cores, Job
from measure.scaling.costs import Costs
from measure.scaling.engine import SimulatedPool, Worker
from measure.scaling.parts import SimulatedPolicy, SimulatedScoring
from rewards.carriers import SqlTask
from rollout.carriers import Prompt
from trainer.batch.batcher import Batcher
from trainer.batch.rewards import component_weights
from trainer.pipeline.buffer import GroupBuffer
from trainer.pipeline.clock import StageClock, now
from trainer.pipeline.loop import StepOutcome, TrainingLoop
from trainer.pipeline.producer import Produced, Producer
from trainer.preemption import Preemption

WARMUP, TAIL = 2, 1
"""Steps at both ends that are not counted: the pipeline fills, and nothing is generated beside the last one."""
_NEVER_S = 1e9


@dataclass(frozen=True, kw_only=True, slots=True)
class Simulated:
    """Means over the counted steps."""

    step_s: float
    completions_per_s: float
    seconds_by_stage: dict[str, float]
    """What the trainer waited for."""
    trainer_wait_share: float
    """Of the step: generation and scores."""
    rollout_idle_share: float
    """Of the workers' time."""
    staleness_mean: float
    staleness_max: float
    queue_s: float
    driver_cpu_s: float
    """Real CPU seconds of a step's pipeline code, stand-ins included: an upper bound on what the driver needs."""


@dataclass(kw_only=True)
class _Record:
    """What is known when a step has ended."""

    at: float
    idle_s: float
    cpu_s: float
    stages: dict[str, float]
    lags: list[int] = field(default_factory=list)
    queue_s: float = 0.0


def simulated(config: TrainConfig, costs: Costs, *, steps: int, workers: int, cores: float = math.inf) -> Simulated:
    """`cores`: that engines and learner share (infinite: each has a device of its own). Needs steps > 4."""
    return simulate(_run(config, costs, steps=steps, workers=workers, cores=cores))


async def _run(config: TrainConfig, costs: Costs, *, steps: int, workers: int, cores: float) -> Simulated:
    machine = Cores(cores)
    group, prompts = config.rollout.group_size, config.pipeline.prompts_per_step
    # Without a limit nobody slows anybody down, and no worker need hear of the others.
    places = [machine if math.isfinite(cores) else Cores() for _ in range(workers)]
    pool = SimulatedPool([Worker(place, costs.engine) for place in places], costs.lengths, seed=config.seed)
    policy = SimulatedPolicy(costs, Job(machine, costs.learner_cores), pool, group * prompts)
    clock = StageClock()
    loop = TrainingLoop(
        buffer=_buffer(config),
        producer=Producer(
            prompt_at=lambda position: _prompt(position, costs.prompt_tokens),
            source=pool,
            scoring=SimulatedScoring(costs),
            group_size=group,
            sampling=config.rollout.sampling,
        ),
        policy=policy,
        memory=policy,
        history=policy,
        clock=clock,
        preemption=Preemption(),
        batcher=Batcher(
            algo=config.algo,
            component_weights=component_weights(config.reward),
            completion_budget=config.rollout.sampling.max_tokens,
        ),
        stall_timeout_s=_NEVER_S,
        max_unscorable_share=1.0,
    )
    records = []
    async for outcome in loop.steps(0, steps):
        records.append(_record(outcome, clock, pool))
    return _summary(records, workers=workers, completions=group * prompts)


def _buffer(config: TrainConfig) -> GroupBuffer[Produced]:
    prompts, algo = config.pipeline.prompts_per_step, config.algo
    return GroupBuffer(
        batch_size=prompts,
        max_staleness=config.pipeline.max_staleness,
        max_rejected=int(algo.resample_limit * prompts) if algo.resample else 0,
    )


def _prompt(position: int, tokens: int) -> Prompt:
    task = SqlTask(id=str(position), db_id="simulated", question="", gold_sqls=("",), databases=("",))
    return Prompt(task=task, text="", token_ids=(0,) * tokens)


def _record(outcome: StepOutcome, clock: StageClock, pool: SimulatedPool) -> _Record:
    return _Record(
        at=now(),
        idle_s=pool.idle_s,
        cpu_s=time.process_time(),
        stages=clock.take_step(),
        lags=[outcome.trained_version - group.group.oldest_version for group in outcome.groups],
        queue_s=outcome.queue_s,
    )


def _summary(records: list[_Record], *, workers: int, completions: int) -> Simulated:
    first, counted = records[WARMUP - 1], records[WARMUP:-TAIL]
    last = counted[-1]
    step_s = (last.at - first.at) / len(counted)
    stages = {
        name: fmean(one.stages.get(name, 0.0) for one in counted) for name in ("generate", "score", "train", "sync")
    }
    lags = [lag for one in counted for lag in one.lags]
    return Simulated(
        step_s=step_s,
        completions_per_s=completions / step_s,
        seconds_by_stage=stages,
        trainer_wait_share=(stages["generate"] + stages["score"]) / step_s,
        rollout_idle_share=(last.idle_s - first.idle_s) / (workers * (last.at - first.at)),
        staleness_mean=fmean(lags),
        staleness_max=float(max(lags)),
        queue_s=fmean(one.queue_s for one in counted),
        driver_cpu_s=(last.cpu_s - first.cpu_s) / len(counted),
    )
