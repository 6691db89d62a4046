"""How completions are sampled, and the vLLM engine that samples them."""

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from conf.schema.base import PathText, Section


class SamplingConfig(Section):
    temperature: float = Field(default=1.0, ge=0.0)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    top_k: NonNegativeInt = 0
    """0: no limit."""
    max_tokens: PositiveInt = 2048
    """Completion budget in tokens."""


class EngineConfig(Section):
    """One vLLM engine. Values reach vLLM's EngineArgs under the names given in each description."""

    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    max_model_len: PositiveInt | None = None
    """Prompt plus completion in tokens (None: prompt.max_tokens + rollout.sampling.max_tokens)."""
    max_num_seqs: PositiveInt = 256
    max_num_batched_tokens: PositiveInt = 8192
    kv_cache_gib: PositiveFloat = 2.0
    """CPU only: memory for the key-value cache, GiB."""
    gpu_memory_utilization: float = Field(default=0.85, gt=0.0, le=1.0)
    enforce_eager: bool = True
    prefix_caching: bool = True
    block_size: PositiveInt | None = None
    """Tokens of a block of the cache (None: vLLM's choice). A group's completions share the whole blocks of their
    prompt; on a GPU each reads the rest of it anew, on a CPU they copy it."""
    tensor_parallel_size: PositiveInt = 1
    threads: PositiveInt = 1
    """CPU only: OMP threads of the engine's process."""
    fused_decoding: bool = True
    """CPU only, one thread, float32, eager: while completions are sampled, a Qwen2's forward pass is one call of a
    kernel of our own, which a C compiler makes at the start (false: vLLM's)."""

    def check_step(self, max_model_len: int, name: str) -> None:
        """Raises ValueError when a step cannot give each sequence its token, which vLLM refuses. `name`: the section,
        as the user writes it."""
        if max(self.max_num_batched_tokens, max_model_len) < self.max_num_seqs:
            raise ValueError(
                f"{name}.max_num_seqs={self.max_num_seqs} is more than the tokens of a step, {name}."
                f"max_num_batched_tokens={self.max_num_batched_tokens}: lower the former or raise the latter"
            )


class RolloutConfig(Section):
    group_size: int = Field(default=32, ge=2)
    """Completions for each prompt (G), sampled by one request."""
    workers: PositiveInt = 1
    """Ray actors, one engine each."""
    sampling: SamplingConfig = SamplingConfig()
    lengths: PathText | None = None
    """Speed measurements alone: a file of recorded completion lengths, tokens, one a line; each training completion
    gets a budget drawn from it (None: sampling.max_tokens for all)."""
    engine: EngineConfig = EngineConfig()
    weight_transfer: Literal["auto", "shared_memory", "ipc", "nccl"] = "auto"
    """auto: shared_memory on the CPU, ipc when rollout and learner share one GPU, nccl otherwise."""
    in_flight: Literal["keep", "wait", "abort"] = "keep"
    """What a weight update does with completions in flight (pipeline.max_staleness > 0). keep: the engine pauses
    between two steps and they continue under the new weights. wait: it finishes their groups first. abort: their groups
    begin anew under the new weights; what is trained on is then shorter than what the policy writes, since a group that
    ends before an update stays and one that does not is drawn again (async/aborted_tokens_mean shows how much)."""
    max_logprob_difference: PositiveFloat | None = None
    """Mean |engine - learner| log-probability in nats, over tokens of the trained version, above which a batch is
    refused ("stale or wrong weights") and the run goes on from its last checkpoint. None: what the precision needs,
    1e-3 where engine and learner compute in float32 (on a GPU 1e-2), 0.1 where one of them computes in bfloat16."""
    start_timeout_s: PositiveFloat = 600.0
    group_timeout_s: PositiveFloat = 600.0
    """Longest time without a finished group before a worker counts as hung."""
    max_restarts: NonNegativeInt = 3
    """Times that each worker is replaced after it died, hung or missed its weights, before it is given up."""
