"""ipc on one CUDA device: learner copies and engine share it, nothing passes through the host."""

import asyncio
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from conf.schema.rollout import EngineConfig, SamplingConfig
from rollout.requests import EngineSpec, GenerationRequest
from rollout.vllm_backend import environment
from trainer.learner.gather import gathered_weights
from trainer.weights.builder import sender_factory

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def engine_logprobs(spec: EngineSpec, prompt: tuple[int, ...], handles: list[object]) -> list[tuple[int, ...]]:
    """Runs in a process of its own: ipc handles cannot be opened by the process that made them."""
    from rollout.engine import RolloutEngine

    engine = RolloutEngine(spec)
    for handle in handles:
        engine.update_weights(handle)
    engine.add(
        GenerationRequest(id="g", prompt_ids=prompt, n=1, sampling=SamplingConfig(temperature=0.0, max_tokens=8))
    )
    groups = []
    while engine.pending:
        groups += engine.step()
    [completion] = groups[0].completions
    return [completion.token_ids, completion.logprobs]


def test_ipc_update_gives_the_learners_log_probabilities(tiny_policy: Path) -> None:
    import ray

    model = AutoModelForCausalLM.from_pretrained(tiny_policy, dtype=torch.float32).cuda()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    sender = sender_factory("ipc", "float32")()
    handle = sender.publish(gathered_weights(model, sharded=False), 1)
    settings = EngineConfig(dtype="float32", gpu_memory_utilization=0.1, max_num_seqs=8)
    spec = EngineSpec(
        model=str(tiny_policy),
        engine=settings,
        max_model_len=128,
        seed=0,
        accelerator="gpu",
        weight_transfer="ipc",
    )
    prompt = tuple(range(20, 60))
    ray.init(include_dashboard=False)
    try:
        options = {"num_gpus": 0.4, "runtime_env": {"env_vars": environment(settings, "gpu")}}
        call = ray.remote(engine_logprobs).options(**options).remote(spec, prompt, [handle])
        tokens, logprobs = asyncio.run(asyncio.wait_for(_result(call), 300))
    finally:
        ray.shutdown()
        sender.close()
    ids = torch.tensor([prompt + tokens], device="cuda")
    with torch.no_grad():
        scores = model(ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    expected = scores.gather(1, ids[0, len(prompt) :, None])[:, 0].cpu()
    assert (expected - torch.tensor(logprobs)).abs().max() <= 1e-3


async def _result(call: object) -> list[tuple[int, ...]]:
    return await call
