"""One training run from a validated configuration: opens the folder, prepares the data, starts the engines, runs the
job, closes all.

Whatever ends the run, its actors are stopped, summary.json and report.html are written, and the last checkpoint stays
intact. A run that goes on from something (resume=auto) takes its folder over when its engines are about to start: what
ends it before, a refusal above all, leaves configuration, rows and summary as they were.

What may take long and cannot be awaited runs outside an event loop, where Ctrl-C ends it at once.
"""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, ExitStack
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path

from conf.errors import QuorumError, Terminated
from conf.load import to_yaml
from conf.schema.root import TrainConfig
from records.checkpoint import Checkpoint, CheckpointInvalid, CheckpointStore
from records.identity import WARM_WEIGHTS, Identity, setting_facts
from records.index.register import Registration
from records.metrics import Sink, Sinks
from records.report.page import write_report
from records.run_folder import CHECKPOINTS, DROPPED, RunFolder
from records.sinks.console import RunConsole, open_console
from records.sinks.prometheus_sink import PrometheusSink
from records.sinks.wandb_sink import open_wandb
from records.summary import Status, engine_versions, summarise
from rewards.combine import Combiner
from rollout.errors import WeightUpdateFailed
from rollout.prompt.cut import CUT, CutPrompt
from rollout.tasks import Dropped, TaskSet
from trainer.data import PreparedData, check_heldout, checked, rendered, restore
from trainer.guard import unless_lost
from trainer.inputs import Inputs, check_inputs, load_inputs, with_warm_up
from trainer.job import Job
from trainer.learner.errors import LearnerLost, LearnerStalled, WrongWeights
from trainer.memory_watch import MemoryWatch
from trainer.pipeline.clock import StageClock
from trainer.placement import local_ray
from trainer.policy_folder import warmed_up
from trainer.preemption import Preempted, Preemption
from trainer.resume import Saved, saved
from trainer.services import engines
from trainer.warmup.cache import left_out


def run(config: TrainConfig) -> int:
    """Runs the job and returns 0. Raises QuorumError with the cause of an early end, KeyboardInterrupt when stopped."""
    Combiner(config.reward)  # rewards that contradict each other leave no run behind
    path = Path(config.run.dir) / config.run.name
    going_on = config.resume == "auto"
    with RunFolder(path, resume=going_on) as folder:
        checkpoints = CheckpointStore(path / CHECKPOINTS, keep=config.checkpoint.keep)
        resumed = checkpoints.latest() if going_on else None
        if resumed and resumed.state.step >= config.pipeline.steps:
            sys.stderr.write(f"{path} has done its {resumed.state.step} steps: raise pipeline.steps to go on\n")
            return 0
        before = saved(path, resumed) if going_on else None
        if before is not None:
            folder.check(resumed.state.step if resumed else None)
            before.check(setting_facts(config), config.learner)
        _Session(config, folder, checkpoints, resumed, before).run()
    return 0


class _Session:
    """This process's part of the run."""

    def __init__(
        self,
        config: TrainConfig,
        folder: RunFolder,
        checkpoints: CheckpointStore,
        resumed: Checkpoint | None,
        before: Saved | None,
    ) -> None:
        self._config = config
        self._folder = folder
        self._checkpoints = checkpoints
        self._resumed = resumed
        self._before = before
        self._clock = StageClock()
        self._preemption = Preemption(grace_s=config.checkpoint.grace_s)
        self._started = time.monotonic() - (resumed.state.wall_s if resumed else 0.0)
        self._entry: Registration | None = None
        """The run's row in the index, from the time on when the folder is this process's."""
        self._dropped: list[Dropped] = []
        self._cut: list[CutPrompt] = []
        self._source: Callable[[], Identity] | None = None
        """What the run is made from, as its files are now; known when the data is ready."""
        self._when = "before training had begun"
        """Where SIGTERM finds nothing to save."""

    def run(self) -> None:
        status: Status = "failed"
        cause: str | None = None
        if self._before is None:  # there is nothing to go on from, and so nothing to lose
            self._take_over()
        console = open_console(self._config.logging.progress, steps=self._config.pipeline.steps)
        memory = MemoryWatch()
        try:
            self._job(console, memory)
            status = "finished"
        except KeyboardInterrupt as error:
            status, cause = "stopped", "interrupted"
            if not self._preemption.ended and not isinstance(error, Terminated):
                raise
            cause = f"stopped by SIGTERM {self._when}"
            raise Terminated from error
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

    def _take_over(self) -> Registration:
        """From here on the folder tells of this process. Raises QuorumError."""
        if self._config.resume == "auto":
            self._folder.rewind(self._resumed.state.step if self._resumed else None)
        self._folder.write_config(to_yaml(self._config))
        self._entry = Registration(self._config, self._folder.path)
        return self._entry

    def _job(self, console: RunConsole, memory: MemoryWatch) -> None:
        config, folder = self._config, self._folder
        inputs = load_inputs(config, self._before, console.note)
        if self._entry is not None:
            self._entry.add_data(inputs.tasks)
        check_inputs(config, inputs, console)
        self._leave_out(inputs.tasks.dropped, console)
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
            self._train(inputs, console, memory, Sinks(sinks))

    def _train(self, inputs: Inputs, console: RunConsole, memory: MemoryWatch, sinks: Sinks) -> None:
        config = self._config
        # Ray installs a handler of its own for SIGTERM when it starts.
        with ExitStack() as ray:
            with self._clock.stage("start"):
                ray.enter_context(local_ray(config.cluster))
            ray.enter_context(self._preemption.listening())
            data, policy = self._prepared(inputs, console)
            self._source = partial(with_warm_up, config, inputs, policy)
            identity = self._source()
            if self._before is not None:
                self._check_policy(self._before, identity, console.note)
            if self._resumed:
                console.note(f"resuming after step {self._resumed.state.step}")
                # On a copy: other tasks than the checkpoint has seen are refused before the engines start.
                restore(deepcopy(data.stream), self._resumed)
            if self._entry is None:
                self._take_over().add_data(inputs.tasks)
                self._folder.write_dropped(self._dropped)
            self._folder.write_cut(self._cut)
            self._folder.write_identity(identity)
            job = partial(
                Job,
                config=config,
                folder=self._folder,
                identity=identity,
                console=console,
                sinks=sinks,
                checkpoints=self._checkpoints,
                memory=memory,
                preemption=self._preemption,
                clock=self._clock,
                started=self._started,
            )
            asyncio.run(self._run_job(job, data, policy, console))

    def _prepared(self, inputs: Inputs, console: RunConsole) -> tuple[PreparedData, Path]:
        """The data that is left, and the policy that GRPO starts from."""
        config = self._config
        # Before the warm-up, so that a broken gold is not imitated either.
        with console.stage("checking the data"), self._clock.stage("check"):
            tasks = checked(config, inputs.tasks)
        self._leave_out(tasks.dropped[len(inputs.tasks.dropped) :], console)
        check_heldout(config.evaluation, tasks.heldout)
        # A pretrained policy keeps its tokenizer in the warm-up: what does not fit is known before.
        data = self._rendered(tasks, inputs.policy, console) if inputs.policy is not None else None
        policy = inputs.policy
        if config.warmup.enabled:
            with console.stage("warm-up"), self._clock.stage("warmup"):
                policy = asyncio.run(warmed_up(config, tasks, console.note))
            self._leave_out(left_out(policy), console)
        assert policy is not None  # the schema refuses model=tiny without a warm-up
        return data or self._rendered(tasks, policy, console), policy

    def _check_policy(self, before: Saved, now: Identity, note: Callable[[str], None]) -> None:
        """The facts, those of a warm-up that was made again among them. Raises ResumeRefused where the run goes on from
        another policy than that warm-up's."""
        facts = dict(now.facts)
        warm, was = facts.get(WARM_WEIGHTS), before.facts.get(WARM_WEIGHTS)
        if not self._config.learner.lora.rank and warm and was and warm.value != was.value:
            # The checkpoint holds all weights that are trained.
            del facts[WARM_WEIGHTS]
            reference = ", a reference policy (algo.kl) is the new one" if self._config.algo.kl.coefficient else ""
            note(f"the warm-up gave other weights than when the run began: the checkpoint's count{reference}")
        before.check(facts, self._config.learner)

    def _check_unchanged(self, resumed: Checkpoint | None, note: Callable[[str], None]) -> None:
        """Fresh engines load the model and open the databases again, which may have been replaced since the start.
        Raises ResumeRefused."""
        before = saved(self._folder.path, resumed)
        if before is not None and self._source is not None:
            self._check_policy(before, self._source(), note)

    def _rendered(self, tasks: TaskSet, policy: Path, console: RunConsole) -> PreparedData:
        with console.stage("rendering the prompts"), self._clock.stage("render"):
            data = rendered(self._config, tasks, policy)
        self._leave_out(data.dropped[len(tasks.dropped) :], console)
        self._cut = [one for cut in data.cut.values() for one in cut]
        for sentence in data.cut_sentences(self._config.prompt.max_tokens, self._folder.path / CUT):
            console.note(sentence)
        return data

    def _leave_out(self, entries: Sequence[Dropped], console: RunConsole) -> None:
        """Says at once what the data has lost, and keeps it in dropped.jsonl."""
        self._dropped += entries
        if self._entry is not None:
            self._folder.write_dropped(self._dropped)
        for reason, count in Counter(entry.reason for entry in entries).items():
            console.note(f"left out {count} x {reason} ({self._folder.path / DROPPED})")

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
                    try:
                        await unless_lost(one.run(), running.watch())
                    finally:
                        self._when = "after training had ended"
                return
            except (LearnerLost, LearnerStalled, WeightUpdateFailed, WrongWeights) as error:
                # What has never started is not lost: it would most likely not start the next time either.
                if not started or not restarts_left or self._preemption.asked:
                    raise
                self._when = "while its engines were started anew"
                console.note(f"{error}; going on from {self._kept()}")
            resumed = self._checkpoints.latest()
            self._check_unchanged(resumed, console.note)
            self._folder.rewind(resumed.state.step if resumed else None)

    def _finish(self, status: Status, cause: str | None, console: RunConsole) -> None:
        if self._entry is None:  # the folder tells of the process that this one would have continued
            return
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
