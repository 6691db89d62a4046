"""The whole configuration of a training job and the contradictions between its sections."""

from typing import Literal

from pydantic import Field, model_validator

from conf.schema.algo import AlgoConfig
from conf.schema.base import Section
from conf.schema.data import DataConfig
from conf.schema.learner import LearnerConfig
from conf.schema.model import SMALLEST_VOCABULARY, ModelConfig
from conf.schema.plan import PlanConfig
from conf.schema.prompt import PromptConfig
from conf.schema.reward import LOST_LIMIT, RewardConfig
from conf.schema.rollout import RolloutConfig
from conf.schema.stages import (
    CheckpointConfig,
    ClusterConfig,
    EvaluationConfig,
    LoggingConfig,
    PipelineConfig,
    ProfileConfig,
    RunConfig,
    WarmupConfig,
)


class TrainConfig(Section):
    """Everything `python -m trainer` needs; composed by Hydra, resolved by OmegaConf, validated here."""

    run: RunConfig
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Below 2^32: what numpy, which the warm-up and the engines seed, takes."""
    resume: Literal["never", "auto"] = "never"
    """auto: continue the run of this name from its last checkpoint, or start it when there is none."""
    model: ModelConfig
    data: DataConfig
    prompt: PromptConfig
    rollout: RolloutConfig
    reward: RewardConfig
    algo: AlgoConfig
    learner: LearnerConfig
    warmup: WarmupConfig
    pipeline: PipelineConfig
    evaluation: EvaluationConfig
    checkpoint: CheckpointConfig
    cluster: ClusterConfig
    logging: LoggingConfig
    plan: PlanConfig = PlanConfig()
    profile: ProfileConfig = ProfileConfig()

    @model_validator(mode="after")
    def _consistent(self) -> "TrainConfig":
        budget = self.prompt.max_tokens + self.rollout.sampling.max_tokens
        limit = self.rollout.engine.max_model_len
        if limit is not None and limit < budget:
            raise ValueError(
                f"rollout.engine.max_model_len={limit} is smaller than prompt.max_tokens + rollout.sampling.max_tokens"
                f" = {budget}: raise it, or lower one of the two"
            )
        self.rollout.engine.check_step(limit or budget, "rollout.engine")
        if self.model.type == "tiny" and self.model.max_positions < budget:
            raise ValueError(
                f"model.max_positions={self.model.max_positions} is smaller than prompt.max_tokens + "
                f"rollout.sampling.max_tokens = {budget}: raise it to at least {budget}"
            )
        if self.model.type == "tiny" and limit is not None and self.model.max_positions < limit:
            raise ValueError(
                f"rollout.engine.max_model_len={limit} is beyond model.max_positions={self.model.max_positions}: lower "
                "the former or raise the latter"
            )
        if self.model.type == "tiny" and self.model.vocabulary < SMALLEST_VOCABULARY:
            raise ValueError(
                f"model.vocabulary={self.model.vocabulary} is too small: at least {SMALLEST_VOCABULARY} tokens are "
                "needed"
            )
        if self.model.type == "pretrained" and self.model.random_weights and not self.warmup.enabled:
            raise ValueError(
                "model.random_weights=true is what a warm-up starts from, and without one the folder's weights are "
                "trained: set warmup.enabled=true, or leave it out"
            )
        if self.model.type == "tiny" and not self.warmup.enabled:
            raise ValueError("model=tiny has random weights: set warmup.enabled=true, or choose model=pretrained")
        if self.profile.steps is not None and self.profile.steps[1] > self.pipeline.steps:
            raise ValueError(
                f"profile.steps ends at {self.profile.steps[1]}, beyond pipeline.steps={self.pipeline.steps}"
            )
        if self.prompt.thinking != self.reward.format.thinking:
            raise ValueError(
                f"prompt.thinking={self.prompt.thinking} contradicts "
                f"reward.format.thinking={self.reward.format.thinking}"
            )
        if self.pipeline.prompts_per_step % (self.learner.ranks * self.algo.updates_per_step):
            raise ValueError(
                f"pipeline.prompts_per_step={self.pipeline.prompts_per_step} must be a multiple of learner.ranks x "
                f"algo.updates_per_step = {self.learner.ranks * self.algo.updates_per_step}"
            )
        if self.learner.micro_batch_tokens < budget:
            raise ValueError(
                f"learner.micro_batch_tokens={self.learner.micro_batch_tokens} is smaller than prompt.max_tokens + "
                f"rollout.sampling.max_tokens = {budget}, the longest sequence of a forward pass: raise it to at least "
                f"{budget}"
            )
        learner = self.learner
        if self.cluster.accelerator == "gpu" and learner.packing == "shared_prefix" and learner.dtype == "float32":
            raise ValueError(
                "learner.packing=shared_prefix needs learner.dtype=bfloat16 on a GPU, where its attention has no "
                "float32: choose one of learner.dtype=bfloat16 and learner.packing=padded"
            )
        return self

    @model_validator(mode="after")
    def _weights_reach_the_engines(self) -> "TrainConfig":
        transfer, cluster, engine = self.rollout.weight_transfer, self.cluster, self.rollout.engine
        if cluster.accelerator == "cpu" and transfer in ("ipc", "nccl"):
            option = "single_gpu" if transfer == "ipc" else "split"
            raise ValueError(
                f"rollout.weight_transfer={transfer} needs cluster.accelerator=gpu: choose cluster={option}, or "
                "rollout.weight_transfer=auto"
            )
        if transfer == "ipc" and not cluster.colocate:
            raise ValueError(
                "rollout.weight_transfer=ipc needs rollout and learner on one device: choose cluster=single_gpu, or "
                "rollout.weight_transfer=nccl"
            )
        if transfer == "nccl" and cluster.colocate:
            raise ValueError(
                "rollout.weight_transfer=nccl needs a device for each process and cluster.colocate=true shares one: "
                "choose cluster=split, or rollout.weight_transfer=ipc"
            )
        share = float(engine.tensor_parallel_size) if engine.tensor_parallel_size > 1 else cluster.rollout_gpus
        devices = self.learner.ranks * cluster.learner_gpus + self.rollout.workers * share
        if cluster.accelerator == "gpu" and cluster.colocate and transfer != "shared_memory" and devices > 1.0 + 1e-9:
            apart = "cluster=split" if transfer == "auto" else "cluster=split with rollout.weight_transfer=auto"
            wide = engine.tensor_parallel_size > 1
            lower = "cluster.learner_gpus and cluster.rollout_gpus until they add up to one"
            raise ValueError(
                f"cluster.colocate=true shares one device, and learner.ranks={self.learner.ranks} x "
                f"cluster.learner_gpus={cluster.learner_gpus:g} + rollout.workers={self.rollout.workers} x {share:g} "
                f"ask for {devices:g}: choose {apart}, or "
                + ("set rollout.engine.tensor_parallel_size=1" if wide else f"lower {lower}")
            )
        shared_memory = transfer == "shared_memory" or (transfer == "auto" and cluster.accelerator == "cpu")
        if shared_memory and engine.tensor_parallel_size > 1:
            raise ValueError(
                f"weights by shared memory reach one process of an engine, and rollout.engine.tensor_parallel_size="
                f"{engine.tensor_parallel_size} makes several: set it to 1 and raise rollout.workers instead"
            )
        return self

    @model_validator(mode="after")
    def _can_be_learned_from(self) -> "TrainConfig":
        sampling = self.rollout.sampling
        if sampling.temperature == 0.0:
            raise ValueError(
                "rollout.sampling.temperature=0 samples the same completion every time, which no group can learn from "
                "(and the learner divides by it): set it above 0, usually 1.0"
            )
        if sampling.top_p < 1.0 or sampling.top_k > 0:
            raise ValueError(
                f"rollout.sampling.top_p={sampling.top_p:g} and top_k={sampling.top_k} cut the distribution that the "
                "learner knows whole, so no importance weight would be right: train with top_p=1 top_k=0"
            )
        if self.algo.overlong.buffer_tokens > sampling.max_tokens:
            raise ValueError(
                f"algo.overlong.buffer_tokens={self.algo.overlong.buffer_tokens} exceeds "
                f"rollout.sampling.max_tokens={sampling.max_tokens}"
            )
        return self

    @model_validator(mode="after")
    def _failures_are_mended_before_the_run_ends(self) -> "TrainConfig":
        stall_s, silent_s = self.pipeline.stall_timeout_s, self.rollout.group_timeout_s
        if silent_s >= stall_s:
            raise ValueError(
                f"rollout.group_timeout_s={silent_s:g} would replace a hung worker when "
                f"pipeline.stall_timeout_s={stall_s:g} has ended the run: lower the former or raise the latter"
            )
        still_s = self.reward.server.timeout_s
        if LOST_LIMIT * still_s >= stall_s:
            raise ValueError(
                f"reward.server.timeout_s={still_s:g} would give up a group that hangs {LOST_LIMIT} reward actors when "
                f"pipeline.stall_timeout_s={stall_s:g} has ended the run: lower the former below a third of the latter"
            )
        return self
