"""This trainer's configuration as TRL's options: the same algorithm, sizes and device. Pure: TRL is not imported."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from conf.errors import QuorumError
from conf.schema.algo import ClippedLoss
from conf.schema.root import TrainConfig


def grpo_options(config: TrainConfig, spec: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of TRL's GRPOConfig.

    `spec`: what measure/throughput/blocks.py writes. Raises QuorumError for what TRL would do otherwise.
    """
    loss, algo, learner, sampling = config.algo.loss, config.algo, config.learner, config.rollout.sampling
    if not isinstance(loss, ClippedLoss) or algo.kl.coefficient or algo.updates_per_step != 1:
        raise QuorumError("the comparison knows clipped losses without a KL term and with one update a step")
    completions = config.pipeline.prompts_per_step * config.rollout.group_size
    micro_batch = min(spec["micro_batch"], completions)
    on_gpu = config.cluster.accelerator == "gpu"
    engine = {
        "vllm_mode": "colocate",
        "vllm_gpu_memory_utilization": config.rollout.engine.gpu_memory_utilization,
        "vllm_max_model_length": config.prompt.max_tokens + sampling.max_tokens,
    }
    return (engine if spec["generation"] == "vllm" else {}) | {
        "output_dir": str(Path(spec["output"]).with_suffix("")),
        "use_cpu": not on_gpu,
        "bf16": learner.dtype == "bfloat16",
        "max_steps": spec["steps"],
        "per_device_train_batch_size": micro_batch,
        "gradient_accumulation_steps": completions // micro_batch,
        "num_generations": config.rollout.group_size,
        "max_completion_length": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "loss_type": loss.type,
        "epsilon": loss.epsilon_low,
        "epsilon_high": loss.epsilon_high,
        "beta": 0.0,
        "scale_rewards": algo.advantage.scale,
        "learning_rate": learner.learning_rate,
        "lr_scheduler_type": "constant",
        "adam_beta1": learner.beta1,
        "adam_beta2": learner.beta2,
        "weight_decay": learner.weight_decay,
        "max_grad_norm": learner.max_grad_norm,
        "gradient_checkpointing": learner.gradient_checkpointing,
        "shuffle_dataset": False,
        "use_vllm": spec["generation"] == "vllm",
        "use_transformers_continuous_batching": spec["generation"] == "continuous_batching",
        "report_to": "none",
        "logging_strategy": "no",
        "save_strategy": "no",
        "disable_tqdm": True,
        "seed": config.seed,
    }
