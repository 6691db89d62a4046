"""What crosses between pool and worker: requests without their task, completions without their prompt."""

from dataclasses import dataclass
from typing import Literal

from conf.schema.rollout import EngineConfig, SamplingConfig
from rollout.carriers import Completion


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineSpec:
    """Everything that makes one engine."""

    model: str
    """Hugging Face folder: config, safetensors, tokenizer."""
    engine: EngineConfig
    max_model_len: int
    """Prompt plus completion, tokens."""
    seed: int
    """Of this engine's sampler; each worker has its own."""
    accelerator: str
    """"cpu" or "gpu"."""
    weight_transfer: str
    """"shared_memory", "ipc" or "nccl"."""
    in_flight: Literal["keep", "wait", "abort"] = "keep"
    """rollout.in_flight."""
    version: int = 0
    """Policy version of the folder's weights."""
    log_file: str | None = None
    """Receives vLLM's log; None: warnings are dropped, failures still raise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationRequest:
    """One group to sample."""

    id: str
    prompt_ids: tuple[int, ...]
    n: int
    """Completions to sample from the prompt."""
    sampling: SamplingConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class SampledGroup:
    """The finished completions of one request, in order of their index."""

    id: str
    completions: tuple[Completion, ...]
