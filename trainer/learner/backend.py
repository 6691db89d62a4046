"""Starts DeepSpeed in this process: process group, engine configuration, quiet logs."""

import contextlib
import io
import logging
import os
from datetime import timedelta
from typing import Any

import torch
from torch import nn

from conf.schema.learner import LearnerConfig
from trainer.learner.optimizer import build_optimizer
from trainer.learner.spec import LearnerSpec, Rendezvous

WHOLE_UP_TO = 100_000
"""ZeRO-3: parameters of at most so many numbers stay whole on every rank."""


def start_engine(module: nn.Module, spec: LearnerSpec, rendezvous: Rendezvous) -> Any:
    """A `DeepSpeedEngine` around `module`. Every rank must call it.

    Gradients are averaged over ranks by DeepSpeed; one optimizer update is any number of `backward` calls and one
    `step`.
    """
    _set_environment(spec, rendezvous)
    # DeepSpeed chooses its accelerator from the environment when it is imported.
    import deepspeed

    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    # For CPU ranks DeepSpeed would compile an all-reduce of its own at a machine's first start, which takes minutes on
    # two cores, and a compiler; without it gloo serves.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    # DeepSpeed writes to stdout.
    with contextlib.redirect_stdout(io.StringIO()):
        if not torch.distributed.is_initialized():
            torch.distributed.init_process_group(
                backend={"cpu": "gloo", "cuda": "nccl"}[spec.device],
                init_method=f"tcp://{rendezvous.address}:{rendezvous.port}",
                rank=rendezvous.rank,
                world_size=rendezvous.world_size,
                timeout=timedelta(seconds=rendezvous.timeout_s),
            )
        deepspeed.init_distributed(auto_mpi_discovery=False, verbose=False)
        optimizer = build_optimizer(module, spec.learner)
        engine, *_ = deepspeed.initialize(
            model=module, optimizer=optimizer, config=_engine_config(spec.learner, rendezvous.world_size)
        )
    _restore_buffers(engine.module, buffers)
    return engine


def leave_group() -> None:
    """Leave the process group, at the end of the process: DeepSpeed cannot join a second one."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _set_environment(spec: LearnerSpec, rendezvous: Rendezvous) -> None:
    os.environ.update(
        DS_ACCELERATOR=spec.device,
        RANK=str(rendezvous.rank),
        WORLD_SIZE=str(rendezvous.world_size),
        LOCAL_RANK="0",
        MASTER_ADDR=rendezvous.address,
        MASTER_PORT=str(rendezvous.port),
    )


def _engine_config(config: LearnerConfig, world_size: int) -> dict[str, Any]:
    """Stage 0 clips in `GuardedAdamW`, the sharded stages in DeepSpeed."""
    sharded = config.zero_stage > 0
    return {
        "train_micro_batch_size_per_gpu": 1,
        "train_batch_size": world_size,
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        "gradient_clipping": config.max_grad_norm if sharded else 0.0,
        "zero_optimization": {
            "stage": config.zero_stage,
            "overlap_comm": False,
            "stage3_param_persistence_threshold": WHOLE_UP_TO,
        },
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": sharded and config.dtype == "bfloat16"},
        "steps_per_print": 10**9,
    }


def _restore_buffers(module: nn.Module, buffers: dict[str, torch.Tensor]) -> None:
    """DeepSpeed casts buffers along with bfloat16 weights; rotary frequencies must keep their float32 values."""
    for name, buffer in buffers.items():
        parent, _, leaf = name.rpartition(".")
        owner = module.get_submodule(parent)
        persistent = leaf not in owner._non_persistent_buffers_set
        owner.register_buffer(leaf, buffer.to(owner.get_buffer(leaf).device), persistent=persistent)
