"""What vLLM is asked for, by where an engine runs and what becomes of completions in flight."""

from dataclasses import replace

import pytest

from conf.schema.rollout import EngineConfig
from rollout.requests import EngineSpec
from rollout.vllm_backend import SHARED_PROMPTS, engine_arguments

SPEC = EngineSpec(model="m", engine=EngineConfig(), max_model_len=128, seed=0, accelerator="gpu", weight_transfer="ipc")


@pytest.mark.parametrize(("in_flight", "ahead"), [("keep", False), ("abort", False), ("wait", True)])
def test_a_step_is_scheduled_ahead_only_where_no_update_can_meet_it(in_flight: str, ahead: bool) -> None:
    spec = replace(SPEC, in_flight=in_flight)
    assert engine_arguments(spec)["async_scheduling"] is ahead
    assert engine_arguments(replace(spec, accelerator="cpu"))["async_scheduling"] is False


def test_memory_is_a_share_on_a_gpu_and_a_size_on_the_cpu() -> None:
    on_gpu, on_cpu = (engine_arguments(replace(SPEC, accelerator=kind)) for kind in ("gpu", "cpu"))
    assert on_gpu["gpu_memory_utilization"] == SPEC.engine.gpu_memory_utilization
    assert "kv_cache_memory_bytes" not in on_gpu
    assert on_cpu["kv_cache_memory_bytes"] == SPEC.engine.kv_cache_gib * 2**30
    assert "gpu_memory_utilization" not in on_cpu


def test_prompts_are_shared_on_a_cpu_with_prefix_caching_alone() -> None:
    cpu = replace(SPEC, accelerator="cpu")
    assert "kv_transfer_config" not in engine_arguments(SPEC)
    assert engine_arguments(cpu)["kv_transfer_config"] == SHARED_PROMPTS
    anew = replace(cpu, engine=SPEC.engine.model_copy(update={"prefix_caching": False}))
    assert "kv_transfer_config" not in engine_arguments(anew)
