"""The run's stages around the optimizer step: warm-up, pipeline, evaluation, checkpoints, logging, run identity."""

from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, field_validator

from conf.passwords import NO_PASSWORD
from conf.schema.base import PathText, Section, Word


class WarmupConfig(Section):
    """Supervised fine-tuning on the task source's traces (TRL's SFTTrainer) before GRPO."""

    enabled: bool = False
    steps: PositiveInt = 1000
    batch_size: PositiveInt = 32
    learning_rate: PositiveFloat = 1e-3
    max_tokens: PositiveInt = 1024
    """Longest trace, prompt included; longer ones are dropped and counted."""
    threads: PositiveInt = 2
    stall_timeout_s: PositiveFloat = 3600.0
    """Longest wait for its start, and then for each tenth of its steps."""
    cache: PathText = "runs/.cache/warmup"
    """Folder of finished warm-ups, one for each content hash."""


WARMUP_IRRELEVANT = frozenset(("enabled", "cache", "threads", "stall_timeout_s"))
"""Settings of WarmupConfig that do not decide what a warm-up makes."""


class PipelineConfig(Section):
    steps: PositiveInt = 100
    """Optimizer steps asked for."""
    prompts_per_step: PositiveInt = 32
    """Groups consumed by one optimizer step."""
    max_staleness: NonNegativeInt = 0
    """Policy versions that the oldest token of a group may lag behind; 0 is the synchronous, on-policy mode."""
    stall_timeout_s: PositiveFloat = 900.0
    """Longest wait of any stage before the run ends with a report of who waits for whom."""


class EvaluationConfig(Section):
    before: bool = True
    after: bool = True
    every: NonNegativeInt = 0
    """Optimizer steps between evaluations (0: only before and after)."""
    tasks: PositiveInt | None = None
    """Held-out tasks used (None: all)."""
    instances: Literal["primary", "all"] | None = None
    """On which instances of a database an answer must be right (None: as reward.execution.instances says)."""
    n: PositiveInt = 30
    """Sampled candidates for recall@n, mean@n and voting."""
    temperature: PositiveFloat = 1.0
    selection: Literal["value_aware", "majority", "first", "log_probability"] = "value_aware"


class CheckpointConfig(Section):
    every: NonNegativeInt = 50
    """Optimizer steps between checkpoints (0: only the last)."""
    last: bool = True
    """Write one at the end of the run."""
    keep: PositiveInt = 2
    """Newest checkpoints that are kept, beside the one that the running engines were started from."""
    grace_s: PositiveFloat = 25.0
    """After SIGTERM, longest wait for the step under way, seconds: less than the cluster's own grace period. A step
    that takes longer is given up, and the last periodic checkpoint is what remains."""
    on_failure: Literal["stop", "continue"] = "stop"
    """What a run does when a checkpoint cannot be written, on a full disk for instance; the earlier ones are intact."""


class WandbConfig(Section):
    mode: Literal["disabled", "offline", "online"] = "disabled"
    project: Word = "quorum-sql"
    entity: Word | None = None


class LoggingConfig(Section):
    progress: Literal["auto", "rich", "plain", "off"] = "auto"
    samples_every: PositiveInt = 10
    """Optimizer steps between groups written to samples.jsonl in full."""
    samples_groups: PositiveInt = 2
    wandb: WandbConfig = WandbConfig()
    prometheus: bool = False
    """Also set the metrics as gauges of Ray's exporter, which the nodes of a cluster run (docker/grafana)."""


class ProfileConfig(Section):
    steps: tuple[PositiveInt, PositiveInt] | None = None
    """First and last optimizer step that are profiled into the run folder's profile/: a torch trace of each learner
    rank and a timeline of stages and groups, for Perfetto (None: none)."""

    @field_validator("steps")
    @classmethod
    def _in_order(cls, steps: tuple[int, int] | None) -> tuple[int, int] | None:
        if steps is not None and steps[0] > steps[1]:
            raise ValueError(f"the first step, {steps[0]}, comes after the last, {steps[1]}")
        return steps


class RunConfig(Section):
    name: Word = Field(default="quickstart", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    dir: PathText = "runs"
    index: PathText | None = None
    """SQLite file that lists runs (None: index.db in `dir`); a path that all machines share serves a cluster."""

    @field_validator("index")
    @classmethod
    def _is_file(cls, index: str | None) -> str | None:
        if index is not None and "://" in index:
            raise ValueError("the run index is a SQLite file: give a path; database servers are not supported")
        return index


class ClusterConfig(Section):
    address: Word | None = None
    """Ray address; None starts a private local Ray that ends with the run."""
    cpus: PositiveInt | None = None
    """CPUs of the private Ray (None: this machine's)."""
    accelerator: Literal["cpu", "gpu"] = "cpu"
    colocate: bool = False
    """GPU only: rollout and learner share one device."""
    rollout_gpus: NonNegativeFloat = 1.0
    """GPU only: devices for each rollout worker."""
    learner_gpus: NonNegativeFloat = 1.0
    """GPU only: devices for each learner rank."""
    nodes: PositiveInt | None = None
    """Machines that the plan may use (None: this one, or on a cluster as many as it needs)."""
    gpus_per_node: PositiveInt = 8
    """GPU only: devices of one machine, for the plan."""

    @field_validator("address")
    @classmethod
    def _has_no_user(cls, address: str | None) -> str | None:
        if address is not None and "@" in address:
            raise ValueError(NO_PASSWORD)
        return address
