"""The one place that knows vLLM's construction API (`vllm>=0.26,<0.33`): settings in, a ready LLMEngine out.

On the CPU, and on a single GPU, the engine runs in the calling process: it starts in seconds and needs no second
interpreter. With tensor parallelism vLLM starts its own worker processes.
"""

import logging
import os
import tempfile
from pathlib import Path
from typing import Any

from conf.errors import first_line
from conf.schema.rollout import EngineConfig
from conf.short_folder import room_in, short_folder
from rollout.collector import Collector
from rollout.errors import EngineStartFailed
from rollout.preflight import check_memory
from rollout.requests import EngineSpec, GenerationRequest

GIB = 2**30
SOCKET = "00000000-0000-0000-0000-000000000000"
"""The name of a socket between vLLM's processes, in the folder for temporary files."""
SHARED_PROMPTS = {
    "kv_connector": "SharedPrompts",
    "kv_connector_module_path": "rollout.cpu.shared_prompts",
    # The other role has vLLM compute a preempted request anew for those that wait for its keys and values.
    "kv_role": "kv_consumer",
}


def environment(engine: EngineConfig, accelerator: str) -> dict[str, str]:
    """Environment variables of a process that holds an engine; they must be set before torch and vLLM are imported.

    Args:
        accelerator: "cpu" or "gpu".
    """
    common = {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CONFIGURE_LOGGING": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
        "PYTHONWARNINGS": "ignore::FutureWarning",
    }
    if accelerator == "gpu":
        return common
    cpu = common | {
        "OMP_NUM_THREADS": str(engine.threads),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "CUDA_VISIBLE_DEVICES": "",
    }
    # Even an eager engine compiles one small function of its sampler at the first use: 30 s that bring nothing.
    return cpu | {"TORCHDYNAMO_DISABLE": "1"} if engine.enforce_eager else cpu


def build_engine(spec: EngineSpec, collector: Collector) -> Any:
    """Start vLLM and give it our collector in place of its output processor.

    Raises:
        NotEnoughMemory: weights and cache do not fit into free memory (CPU).
        EngineStartFailed: vLLM refuses the settings or the model.
    """
    _send_logs_to(spec.log_file)
    if spec.accelerator == "cpu":
        check_memory(Path(spec.model), spec.engine)
    if not room_in(tempfile.gettempdir(), SOCKET):
        os.environ.setdefault("VLLM_RPC_BASE_PATH", short_folder())
    from vllm import EngineArgs
    from vllm.v1.engine.llm_engine import LLMEngine

    from rollout.weights.receiver import register

    register()
    if spec.accelerator == "cpu" and _fuses(spec.engine):
        from rollout.cpu import decoder

        decoder.keep_weights()
    try:
        engine = LLMEngine.from_engine_args(EngineArgs(**engine_arguments(spec)))
    except (ValueError, RuntimeError, OSError, KeyError, NotImplementedError) as error:
        reason = first_line(error, otherwise=type(error).__name__)
        raise EngineStartFailed(f"vLLM did not start with the model {spec.model}: {reason}") from error
    engine.output_processor = collector
    if spec.accelerator == "cpu":
        _speed_up(engine, spec.engine)
    return engine


def _speed_up(engine: Any, config: EngineConfig) -> None:
    from rollout.cpu import decoder, sampling, slots

    engine.collective_rpc(sampling.install)
    slots.install(engine.engine_core.engine_core.scheduler.kv_cache_manager)
    if _fuses(config):
        engine.collective_rpc(decoder.install)


def _fuses(config: EngineConfig) -> bool:
    alone = config.threads == config.tensor_parallel_size == 1
    return config.fused_decoding and alone and config.enforce_eager and config.dtype == "float32"


def engine_arguments(spec: EngineSpec) -> dict[str, Any]:
    """Keyword arguments of vLLM's EngineArgs."""
    engine = spec.engine
    arguments: dict[str, Any] = {
        "model": spec.model,
        "skip_tokenizer_init": True,
        "generation_config": "vllm",
        "dtype": engine.dtype,
        "seed": spec.seed,
        "max_model_len": spec.max_model_len,
        "max_num_seqs": engine.max_num_seqs,
        "max_num_batched_tokens": max(engine.max_num_batched_tokens, spec.max_model_len),
        "enforce_eager": engine.enforce_eager,
        "enable_prefix_caching": engine.prefix_caching,
        "block_size": engine.block_size,
        "tensor_parallel_size": engine.tensor_parallel_size,
        "distributed_executor_backend": "uni" if engine.tensor_parallel_size == 1 else "mp",
        "logprobs_mode": "processed_logprobs",
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        "weight_transfer_config": {"backend": spec.weight_transfer},
        # It has a step under way when another one is asked for: an update in mid-generation would get tokens of the old
        # weights afterwards.
        "async_scheduling": spec.in_flight == "wait" and spec.accelerator == "gpu",
    }
    if spec.accelerator == "cpu":
        arguments["kv_cache_memory_bytes"] = int(engine.kv_cache_gib * GIB)
        if engine.prefix_caching:
            # Blocks of a device are small enough to be read anew.
            arguments["kv_transfer_config"] = SHARED_PROMPTS
    else:
        arguments["gpu_memory_utilization"] = engine.gpu_memory_utilization
    return arguments


def add_request(engine: Any, request: GenerationRequest, stop_token_ids: list[int]) -> None:
    """Queue one group.

    The request has no seed of its own (a seeded request fails on the CPU once its prefill is chunked): the engine is
    seeded.
    """
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    sampling = request.sampling
    parameters = SamplingParams(
        n=request.n,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        max_tokens=sampling.max_tokens,
        stop_token_ids=stop_token_ids,
        # Of the sampled token alone: what is trained on, and how damaged weights are noticed.
        logprobs=0,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )
    engine.add_request(request.id, {"prompt_token_ids": list(request.prompt_ids)}, parameters)


def _send_logs_to(path: str | None) -> None:
    """vLLM's log goes to a file, or nowhere; what matters is raised."""
    logger = logging.getLogger("vllm")
    logger.propagate = False
    logger.setLevel(logging.WARNING if path is None else logging.INFO)
    logger.handlers.clear()
    if path is None:
        logger.addHandler(logging.NullHandler())
        return
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger.addHandler(handler)
