"""A learner's checkpoint: `policy/` as any Hugging Face tool reads it, `learner/` as only the same learner reads it.

With LoRA `policy/` holds merged weights and `learner/` the adapters, which go on from the policy that the run began
with. Guarantees: loading is strict (every tensor, the same ZeRO stage, adapter rank and, when sharded, number of
ranks); nothing is unpickled. Does not make the folder atomic: the caller renames it when all ranks are done.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from conf.errors import first_line
from trainer.learner.errors import LearnerError
from trainer.learner.gather import gathered_trainable, gathered_weights
from trainer.learner.lora import plain_name
from trainer.learner.saved import LEARNER, META, contradictions, read_saved
from trainer.learner.spec import LearnerSpec
from trainer.model_folder import copy_tokenizer, write_model
from trainer.weights.wire import NamedTensors

ADAPTERS = "adapters.safetensors"


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """Optimizer updates so far; the schedule follows `applied`."""

    applied: int
    skipped: int


def save_state(folder: Path, engine: Any, spec: LearnerSpec, progress: Progress, *, rank: int, world_size: int) -> None:
    """Collective. Rank 0 writes the policy; every rank that holds optimizer state of its own writes that."""
    model = engine.module.language_model
    sharded = spec.learner.zero_stage == 3
    # What is collective comes before anything is written: a rank that cannot write must not leave others waiting in it.
    weights = _on_rank_0(gathered_weights(model, sharded=sharded), rank)
    adapters = _on_rank_0(gathered_trainable(model, sharded=sharded), rank) if spec.learner.lora.rank else {}
    learner = folder / LEARNER
    learner.mkdir(parents=True, exist_ok=True)
    if rank == 0:
        _save_policy(folder / "policy", model, weights, Path(spec.policy))
        meta = {
            "zero_stage": spec.learner.zero_stage,
            "world_size": world_size,
            "lora_rank": spec.learner.lora.rank,
            **asdict(progress),
        }
        (learner / META).write_text(json.dumps(meta))
        if adapters:
            save_file(adapters, learner / ADAPTERS)
    if rank == 0 or spec.learner.zero_stage > 0:
        state, leaves = _optimizer_state(engine, spec)
        payload = {
            "moments": [dict(state[leaf]) for leaf in leaves],
            "masters": [leaf.detach() for leaf in leaves] if spec.learner.zero_stage > 0 else [],
            "random": torch.get_rng_state(),
        }
        torch.save(payload, learner / f"rank-{rank}.pt")


def _on_rank_0(tensors: NamedTensors, rank: int) -> dict[str, torch.Tensor]:
    """Copies in rank 0's host memory; the other ranks take part in gathering."""
    return {name: tensor.to("cpu", copy=True) for name, tensor in tensors if rank == 0}


def _save_policy(folder: Path, model: Any, state: dict[str, torch.Tensor], source: Path) -> None:
    write_model(model, folder, source, _with_tied(model, state))
    copy_tokenizer(folder, source)


def _with_tied(model: Any, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """save_pretrained expects tied tensors under every name and writes each once; buffers are what is left."""
    plain = {name: plain_name(name) for name, _ in model.named_parameters(remove_duplicate=False)}
    first = {id(p): plain[name] for name, p in model.named_parameters()}
    named = model.named_parameters(remove_duplicate=False)
    return state | {known: state[first[id(p)] or known] for name, p in named if (known := plain[name]) is not None}


def load_state(folder: Path, engine: Any, spec: LearnerSpec, *, rank: int, world_size: int) -> Progress:
    """Collective. Raises LearnerError."""
    learner = folder / LEARNER
    meta = read_saved(folder)
    stage = spec.learner.zero_stage
    for name, (was, now) in contradictions(meta, spec.learner.model_copy(update={"ranks": world_size})).items():
        raise LearnerError(f"the checkpoint at {folder} was written with {name}={was}; this learner has {now}")
    files = [learner / ADAPTERS] if spec.learner.lora.rank else sorted((folder / "policy").glob("*.safetensors"))
    _load_weights(files, engine, sharded=stage == 3, rank=rank)
    try:
        payload = torch.load(learner / f"rank-{rank if stage > 0 else 0}.pt", map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:  # torch's own word for a broken archive
        reason = first_line(error, otherwise="it cannot be read")
        raise LearnerError(f"the learner state at {folder} is incomplete: {reason}") from error
    state, leaves = _optimizer_state(engine, spec)
    for leaf, moments in zip(leaves, payload["moments"], strict=True):
        state[leaf] = {name: tensor.to(leaf.device) for name, tensor in moments.items()}
    with torch.no_grad():
        for leaf, master in zip(leaves if stage > 0 else [], payload["masters"], strict=True):
            leaf.copy_(master)
    torch.set_rng_state(payload["random"])
    return Progress(applied=meta.applied, skipped=meta.skipped)


def _load_weights(files: Sequence[Path], engine: Any, *, sharded: bool, rank: int) -> None:
    """What is trained, from safetensors."""
    saved: dict[str, torch.Tensor] = {}
    for file in files:
        try:
            saved |= load_file(file)
        except (OSError, SafetensorError) as error:
            raise LearnerError(f"the checkpoint's weights {file} cannot be read: {error}") from error
    named = {name: p for name, p in engine.module.language_model.named_parameters() if p.requires_grad}
    if missing := sorted(named.keys() - saved.keys()):
        raise LearnerError(f"the checkpoint's weights lack {len(missing)} tensors, first {missing[0]}")
    for name, parameter in named.items():
        if not sharded:
            parameter.data.copy_(saved[name])
            continue
        import deepspeed

        with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
            if rank == 0:
                parameter.data.copy_(saved[name])


def _optimizer_state(engine: Any, spec: LearnerSpec) -> tuple[dict[torch.Tensor, Any], list[torch.Tensor]]:
    """AdamW's state, and the tensors that it is kept for: the weights themselves, or this rank's float32 shards of
    them."""
    optimizer = engine.optimizer
    stage = spec.learner.zero_stage
    if stage == 0:
        return optimizer.state, [p for group in optimizer.param_groups for p in group["params"]]
    shards = optimizer.fp32_partitioned_groups_flat if stage == 3 else optimizer.single_partition_of_fp32_groups
    return optimizer.optimizer.state, list(shards)
