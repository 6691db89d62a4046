"""The life of one training run: evaluate, step, evaluate, checkpoint, in one asyncio task of the driver.

Everything slow happens in actors (rollout workers, reward actors, learner ranks); the driver holds the buffer, the
records and no tensor.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path

from conf.schema.root import TrainConfig
from conf.schema.stages import CheckpointConfig
from records.checkpoint import STREAM, Checkpoint, CheckpointFailed, CheckpointStore, RunState
from records.files import write_atomically
from records.identity import Identity
from records.metrics import Sinks, StepMetrics
from records.run_folder import RunFolder
from records.sinks.console import RunConsole
from records.states import shown
from rollout.replayed_lengths import DrawnLengths, read_lengths
from trainer.batch.batcher import Batcher
from trainer.batch.rewards import component_weights
from trainer.data import PreparedData, restore
from trainer.evaluate import evaluate, nothing_scored
from trainer.learner.agreement import difference_limit
from trainer.memory_watch import MemoryWatch
from trainer.pipeline.buffer import GroupBuffer
from trainer.pipeline.clock import StageClock
from trainer.pipeline.fresh import FreshCheck
from trainer.pipeline.loop import StepOutcome, TrainingLoop
from trainer.pipeline.producer import GroupSource, Produced, Producer
from trainer.preemption import Preempted, Preemption
from trainer.profile.profiler import StepProfiler
from trainer.services import Engines
from trainer.skipped import BATCH, SKIPPED, SkippedBatch, TrainingDiverged, keep
from trainer.step_metrics import ledger_row, outcome_metrics, reward_server_metrics


@dataclass(kw_only=True)
class Job:
    """One process's part of a run, from a checkpoint or from the start."""

    config: TrainConfig
    folder: RunFolder
    identity: Identity
    console: RunConsole
    sinks: Sinks
    data: PreparedData
    engines: Engines
    checkpoints: CheckpointStore
    resumed: Checkpoint | None
    memory: MemoryWatch
    preemption: Preemption
    clock: StageClock
    """Holds what the stages before the job took, which goes into its first row."""
    started: float
    """time.monotonic() at which this process began, less the seconds of the processes it continues."""

    def __post_init__(self) -> None:
        if self.resumed:
            restore(self.data.stream, self.resumed)
        state = self.resumed.state if self.resumed else None
        self.skipped_in_a_row = 0
        self.done = self.saved = state.step if state else 0
        pipeline, algo = self.config.pipeline, self.config.algo
        self.buffer: GroupBuffer[Produced] = GroupBuffer(
            batch_size=pipeline.prompts_per_step,
            max_staleness=pipeline.max_staleness,
            consumed=state.consumed if state else 0,
            version=state.version if state else 0,
            max_rejected=int(algo.resample_limit * pipeline.prompts_per_step) if algo.resample else 0,
        )

    async def run(self) -> None:
        """Runs to pipeline.steps. Raises QuorumError for whatever ends the run early."""
        with self.preemption.gently():
            async with shown(self.folder.path, self.engines.states):
                try:
                    await self._run()
                except Preempted:
                    if self.done > self.saved:
                        await self._checkpoint(self.done)
                    raise

    async def _run(self) -> None:
        steps = self.config.pipeline.steps
        evaluation, checkpoint = self.config.evaluation, self.config.checkpoint
        if evaluation.before and self.done == 0:
            await self._evaluate(0)
        profiler = StepProfiler(self.config.profile, self.folder.path, self.clock, self.engines.learner)
        await profiler.before(self.done + 1)
        step_began = time.monotonic()
        async for outcome in self._loop().steps(self.done, steps):
            await profiler.after(outcome.step)
            self._record(outcome, time.monotonic() - step_began)
            await self._look_at_gradient(outcome)
            last = outcome.step == steps
            if last and evaluation.after or evaluation.every and outcome.step % evaluation.every == 0:
                await self._evaluate(outcome.step)
            if checkpoint_due(checkpoint, outcome.step, last=last):
                await self._checkpoint(outcome.step)
            await profiler.before(outcome.step + 1)
            step_began = time.monotonic()

    def _loop(self) -> TrainingLoop:
        config = self.config
        producer = Producer(
            prompt_at=self.data.prompt_at,
            source=self._source(),
            scoring=self.engines.rewards,
            group_size=config.rollout.group_size,
            sampling=config.rollout.sampling,
        )
        return TrainingLoop(
            buffer=self.buffer,
            producer=producer,
            policy=self.engines.policy,
            memory=self.engines.rewards,
            history=self.data.stream,
            clock=self.clock,
            preemption=self.preemption,
            batcher=Batcher(
                algo=config.algo,
                component_weights=component_weights(config.reward),
                completion_budget=config.rollout.sampling.max_tokens,
            ),
            stall_timeout_s=config.pipeline.stall_timeout_s,
            max_unscorable_share=config.reward.max_unscorable_share,
            fresh=self._fresh_check(),
            states=self.engines.states,
        )

    def _fresh_check(self) -> FreshCheck | None:
        """None in a synchronous run: all tokens of its batches are fresh."""
        config = self.config
        if not config.pipeline.max_staleness:
            return None
        return FreshCheck(
            source=self.engines.pool,
            policy=self.engines.policy,
            sampling=config.rollout.sampling,
            updates=config.algo.updates_per_step,
            workers=config.rollout.workers,
            limit=difference_limit(config.rollout, config.learner, config.cluster.accelerator),
        )

    def _source(self) -> GroupSource:
        lengths = self.config.rollout.lengths
        if lengths is None:
            return self.engines.pool
        return DrawnLengths(self.engines.pool, read_lengths(Path(lengths)), seed=self.config.seed)

    async def _evaluate(self, step: int) -> None:
        prompts = self.data.heldout[: self.config.evaluation.tasks]
        with self.console.stage(f"evaluating {len(prompts)} held-out tasks"), self.clock.stage("evaluate"):
            metrics = await self.preemption.unless(
                evaluate(
                    prompts,
                    source=self.engines.pool,
                    judge=self.engines.judge,
                    config=self.config.evaluation,
                    sampling=self.config.rollout.sampling,
                )
            )
        self._emit(step, metrics)
        nothing = nothing_scored(metrics)
        if nothing is not None:
            self.console.note(f"step {step}: {nothing}")

    def _record(self, outcome: StepOutcome, step_s: float) -> None:
        metrics = outcome_metrics(outcome)
        completions = metrics["perf/completions"]
        consumed = self.buffer.consumed
        self._emit(
            outcome.step,
            metrics
            | reward_server_metrics(self.engines.rewards.stats(), self.engines.rewards.take_peak())
            | {
                "perf/step_s": step_s,
                "perf/completions_per_s": completions / step_s,
                "async/worker_restarts": float(self.engines.pool.restarts),
                "data/position": float(consumed),
                "data/epoch": consumed / len(self.data.stream),
            },
        )
        self.folder.write_ledger(ledger_row(outcome))
        self.done = outcome.step
        if outcome.step % self.config.logging.samples_every in (0, 1):
            shown = outcome.groups[: self.config.logging.samples_groups]
            self.folder.write_samples(shown, step=outcome.step, version=outcome.version)

    async def _look_at_gradient(self, outcome: StepOutcome) -> None:
        """Keeps the batch of a skipped update; ends the run after too many steps of that kind in a row."""
        if not outcome.learner.get("policy/skipped_updates"):
            self.skipped_in_a_row = 0
            return
        self.skipped_in_a_row += 1
        first = outcome.step - self.skipped_in_a_row + 1
        place = self.folder.path / SKIPPED / f"step-{first:06d}"
        if outcome.step == first:
            task_ids = tuple(entry.group.prompt.task.id for entry in outcome.filtered.kept)
            batch = SkippedBatch(
                step=outcome.step,
                sequences=outcome.sequences,
                task_ids=task_ids,
                skipped=outcome.skipped,
                reference=self.engines.learner.reference,
            )
            kept = await self._kept(place, batch)
            self.console.note(f"step {outcome.step}: {_what_was_skipped(outcome)}; {kept}")
        limit = self.config.learner.max_skipped_steps
        if self.skipped_in_a_row > limit:
            file = place / BATCH
            advice = f": `python -m operate.replay {file}` shows the cause" if file.is_file() else ""
            raise TrainingDiverged(
                f"the gradients of {self.skipped_in_a_row} steps in a row were not finite "
                f"(learner.max_skipped_steps={limit}){advice}"
            )

    async def _kept(self, place: Path, batch: SkippedBatch) -> str:
        """Where the batch is, or why it is nowhere."""
        try:
            await keep(place, batch, self.engines.learner.save)
        except CheckpointFailed as error:
            if self.config.checkpoint.on_failure == "stop":
                raise
            return f"{error} (checkpoint.on_failure=continue)"
        return f"kept in {place}"

    def _emit(self, step: int, values: dict[str, float]) -> None:
        metrics = StepMetrics(step=step, version=self.buffer.version)
        metrics.update(values)
        metrics.update({f"perf/{stage}_s": seconds for stage, seconds in self.clock.take_step().items()})
        metrics.add("perf/elapsed_s", time.monotonic() - self.started)
        metrics.add("perf/rss_gib", self.memory.peak_gib)
        self.sinks.write(metrics.row())

    async def _checkpoint(self, step: int) -> None:
        async def write(folder: Path) -> None:
            await self.engines.learner.save(folder.resolve())
            if self.config.reward.memory.enabled:
                await self.engines.rewards.save(str((folder / "memory.sqlite").resolve()))
            write_atomically(folder / STREAM, json.dumps(self.data.stream.state_dict()))
            self.identity.write(folder)
            self.folder.sync()

        state = RunState(
            step=step,
            version=self.buffer.version,
            consumed=self.buffer.consumed,
            seed=self.config.seed,
            wall_s=time.monotonic() - self.started,
        )
        with self.clock.stage("checkpoint"):
            try:
                await self.checkpoints.save(state, write)
                self.saved = step
            except CheckpointFailed as error:
                if self.config.checkpoint.on_failure == "stop":
                    raise
                self.console.note(f"{error}; the run goes on without it (checkpoint.on_failure=continue)")
        self._emit(step, {})


def _what_was_skipped(outcome: StepOutcome) -> str:
    trained = {sequence.group_index for sequence in outcome.sequences if not sequence.masked}
    if trained <= outcome.skipped.groups:
        return "the gradient was not finite, nothing was updated"
    places = ", ".join(str(update + 1) for update in outcome.skipped.updates)
    return f"the gradient of update {places} was not finite, its groups taught nothing"


def checkpoint_due(config: CheckpointConfig, step: int, *, last: bool) -> bool:
    """Whether the run writes a checkpoint when `step` is done."""
    return (last and config.last) or (config.every > 0 and step % config.every == 0)
