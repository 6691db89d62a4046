"""One training run from a validated configuration: opens the folder, prepares the data, starts the engines, runs the
job, closes all.

Whatever ends the run, its actors are stopped, summary.json and report.html are written, and the last checkpoint stays
intact.
"""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path

from conf.errors import QuorumError, Terminated
from conf.load import to_yaml
from conf.schema.root import TrainConfig
from rewards.combine import Combiner
from rollout.drawn_lengths import read_lengths
from rollout.errors import WeightUpdateFailed
from rollout.preflight import check_memory
from rollout.prompt import PromptRenderer
from rollout.prompt.cut import CUT
from rollout.prompt.tokenizer import load_tokenizer
from rollout.tasks import load_tasks
from trainer.checkpoint import Checkpoint, CheckpointInvalid, CheckpointStore
from trainer.console import RunConsole, open_console
from trainer.data import PreparedData, check_heldout, checked, rendered, restore
from trainer.engines import engines
from trainer.guard import unless_lost
from trainer.job import Job
from trainer.learner.errors import LearnerLost, LearnerStalled, WrongWeights
from trainer.memory_watch import MemoryWatch
from trainer.metrics import Sink, Sinks
from trainer.model_check import check_policy
from trainer.pipeline.clock import StageClock
from trainer.placement import local_ray
from trainer.plan.start import check_plan
from trainer.policy_folder import given_policy, warmed_up
from trainer.preemption import Preempted, Preemption
from trainer.prometheus_sink import PrometheusSink
from trainer.registry.register import Registration
from trainer.report.page import write_report
from trainer.run_folder import CHECKPOINTS, DROPPED, RunFolder
from trainer.summary import Status, engine_versions, summarise
from trainer.wandb_sink import open_wandb
from trainer.warmup.cache import left_out


def run(config: TrainConfig) -> int:
    """Runs the job and returns 0. Raises QuorumError with the cause of an early end, KeyboardInterrupt when stopped."""
    Combiner(config.reward)  # rewards that contradict each other leave no run behind
    path = Path(config.run.dir) / config.run.name
    with RunFolder(path, resume=config.resume == "auto") as folder:
        checkpoints = CheckpointStore(path / CHECKPOINTS, keep=config.checkpoint.keep)
        resumed = checkpoints.latest() if config.resume == "auto" else None
        if resumed and resumed.state.step >= config.pipeline.steps:
            sys.stderr.write(f"{path} has done its {resumed.state.step} steps: raise pipeline.steps to go on\n")
            return 0
        if config.resume == "auto":
            folder.rewind(resumed.state.step if resumed else None)
        folder.write_config(to_yaml(config))
        _Session(config, folder, checkpoints, resumed).run()
    return 0


class _Session:
    """This process's part of the run."""

    def __init__(
        self, config: TrainConfig, folder: RunFolder, checkpoints: CheckpointStore, resumed: Checkpoint | None
    ) -> None:
        self._config = config
        self._folder = folder
        self._checkpoints = checkpoints
        self._resumed = resumed
        self._clock = StageClock()
        self._preemption = Preemption(grace_s=config.checkpoint.grace_s)
        self._started = time.monotonic() - (resumed.state.wall_s if resumed else 0.0)
        self._entry = Registration(config, folder.path)

    def run(self) -> None:
        status: Status = "failed"
        cause: str | None = None
        console = open_console(self._config.logging.progress, steps=self._config.pipeline.steps)
        memory = MemoryWatch()
        try:
            asyncio.run(self._job(console, memory))
            status = "finished"
        except Terminated:
            status, cause = "stopped", "stopped by SIGTERM before training had begun"
            raise
        except KeyboardInterrupt:
            status, cause = "stopped", "interrupted"
            raise
        except Preempted as error:
            status, cause = "stopped", str(error)
            raise
        except QuorumError as error:
            cause = str(error)
            raise
        finally:
            memory.close()
            self._finish(status, cause, console)
            console.close()

    async def _job(self, console: RunConsole, memory: MemoryWatch) -> None:
        config, folder = self._config, self._folder
        sinks: list[Sink] = [folder, console]
        with ExitStack() as closing:
            wandb = open_wandb(
                config.logging.wandb,
                folder=folder.path,
                name=config.run.name,
                run_config=config.model_dump(mode="json"),
            )
            if wandb is not None:
                sinks.append(closing.enter_context(wandb))
            if config.logging.prometheus:
                sinks.append(PrometheusSink(config.run.name))
            await self._train(console, memory, Sinks(sinks))

    async def _train(self, console: RunConsole, memory: MemoryWatch, sinks: Sinks) -> None:
        config, folder = self._config, self._folder
        # What can be wrong is looked at before anything slow starts.
        tasks = load_tasks(config.data)
        self._entry.add_data(tasks)
        if config.rollout.lengths is not None:
            read_lengths(Path(config.rollout.lengths))
        policy = given_policy(config)
        if policy is not None:
            renderer = PromptRenderer(config.prompt, load_tokenizer(policy))
            renderer.check()
            if renderer.remark:
                console.note(renderer.remark)
        check_plan(config, policy, console.note)
        if config.cluster.address is None and config.cluster.accelerator == "cpu":
            check_memory(policy, config.rollout.engine)
        if policy is not None:
            with console.stage("checking the model"):
                check_policy(config, policy)
        # Ray installs a handler of its own for SIGTERM when it starts.
        with ExitStack() as ray:
            with self._clock.stage("start"):
                ray.enter_context(local_ray(config.cluster))
            ray.enter_context(self._preemption.listening())
            # Before the warm-up, so that a broken gold is not imitated either.
            with console.stage("checking the data"), self._clock.stage("check"):
                tasks = checked(config, tasks)
            check_heldout(config.evaluation, tasks.heldout)
            if config.warmup.enabled:
                with console.stage("warm-up"), self._clock.stage("warmup"):
                    policy = await warmed_up(config, tasks, console.note)
            assert policy is not None  # the schema refuses model=tiny without a warm-up
            with console.stage("rendering the prompts"), self._clock.stage("render"):
                data = rendered(config, tasks, policy)
            dropped = (*data.dropped, *(left_out(policy) if config.warmup.enabled else ()))
            folder.write_dropped(dropped)
            for reason, count in Counter(entry.reason for entry in dropped).items():
                console.note(f"left out {count} x {reason} ({folder.path / DROPPED})")
            folder.write_cut([one for cut in data.cut.values() for one in cut])
            for sentence in data.cut_sentences(config.prompt.max_tokens, folder.path / CUT):
                console.note(sentence)
            if self._resumed:
                console.note(f"resuming after step {self._resumed.state.step}")
                # On a copy: other tasks than the checkpoint has seen are refused before the engines start.
                restore(deepcopy(data.stream), self._resumed)
            job = partial(
                Job,
                config=config,
                folder=folder,
                console=console,
                sinks=sinks,
                checkpoints=self._checkpoints,
                memory=memory,
                preemption=self._preemption,
                clock=self._clock,
                started=self._started,
            )
            await self._run_job(job, data, policy, console)

    async def _run_job(self, job: Callable[..., Job], data: PreparedData, policy: Path, console: RunConsole) -> None:
        """Runs the job; goes on from the last checkpoint, with fresh engines, when a rank or the weights were lost.
        What does not start at all ends the run at once."""
        resumed, started = self._resumed, False
        for restarts_left in reversed(range(self._config.learner.max_restarts + 1)):
            try:
                async with AsyncExitStack() as stack:
                    with console.stage("starting engines"), self._clock.stage("start"):
                        opened = engines(self._config, policy, resumed, console.note)
                        running = await stack.enter_async_context(opened)
                    started = True
                    # A stream that has seen outcomes of a lost try is not the checkpoint's.
                    fresh = replace(data, stream=deepcopy(data.stream))
                    one = job(data=fresh, engines=running, resumed=resumed)
                    await unless_lost(one.run(), running.watch())
                return
            except (LearnerLost, LearnerStalled, WeightUpdateFailed, WrongWeights) as error:
                # What has never started is not lost: it would most likely not start the next time either.
                if not started or not restarts_left or self._preemption.asked:
                    raise
                console.note(f"{error}; going on from {self._kept()}")
            resumed = self._checkpoints.latest()
            self._folder.rewind(resumed.state.step if resumed else None)

    def _finish(self, status: Status, cause: str | None, console: RunConsole) -> None:
        rows = self._folder.metrics()
        summary = summarise(
            rows,
            status=status,
            error=cause,
            wall_s=time.monotonic() - self._started,
            n=self._config.evaluation.n,
            selection=self._config.evaluation.selection,
            seed=self._config.seed,
            versions=engine_versions(),
            pending=self._clock.take_step(),
        )
        try:
            self._folder.finish(summary)
            console.note(f"report: {write_report(self._folder.path)}")
            self._entry.end(summary)
        except (OSError, QuorumError) as error:
            # On a full disk what ended the run is the error to raise, and a finished run stays finished.
            console.note(f"the run's outcome could not be recorded: {error}")
        if status != "finished" and rows:
            console.note(f"to go on from {self._kept()}: the same command with resume=auto")

    def _kept(self) -> str:
        try:
            latest = self._checkpoints.latest()
        except CheckpointInvalid:
            return "the last whole checkpoint"
        return f"the checkpoint of step {latest.state.step}" if latest else "the start"
