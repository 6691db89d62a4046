"""Shared-prefix training with compiled FlexAttention on a GPU: the padded way's loss and gradients."""

import random

import pytest
import torch

from tests.tiny_qwen2 import tiny_qwen2
from trainer.carriers import TrainingSequence
from trainer.learner.attention import flex
from trainer.learner.packing.batch import PackedBatch
from trainer.learner.packing.padded import pack_padded
from trainer.learner.packing.shared_prefix import pack_shared_prefix
from trainer.learner.policy import Policy

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def sequences() -> list[TrainingSequence]:
    rng = random.Random(0)
    made = []
    for group in range(3):
        prompt = tuple(rng.randrange(500) for _ in range(rng.randrange(150, 400)))
        for _ in range(8):
            completion = tuple(rng.randrange(500) for _ in range(rng.randrange(5, 120)))
            made.append(
                TrainingSequence(
                    group_index=group,
                    prompt_ids=prompt,
                    completion_ids=completion,
                    logprobs=(-1.0,) * len(completion),
                    advantage=rng.uniform(-1, 1),
                )
            )
    return made


def gradients(attention: str, batches: list[PackedBatch]) -> dict[str, torch.Tensor]:
    shape = {"vocab_size": 500, "hidden_size": 256, "intermediate_size": 512, "initializer_range": 0.02}
    model = tiny_qwen2(**shape).cuda()
    model.set_attn_implementation(attention)
    policy = Policy(model, temperature=1.0, chunk=512)
    for batch in batches:
        on_device = batch.to("cuda")
        logp, _ = policy(on_device)
        (logp * on_device.advantage).sum().backward()
    return {name: p.grad for name, p in policy.named_parameters()}


def test_compiled_flex_attention_has_the_padded_ways_gradients():
    torch.backends.cuda.matmul.allow_tf32 = False
    expected = gradients("sdpa", pack_padded(sequences(), budget=4096))
    # Two passes of different lengths: the compiled kernel serves any.
    found = gradients(flex.NAME, pack_shared_prefix(sequences(), budget=1500))
    for name, gradient in expected.items():
        if not name.endswith("k_proj.bias"):  # zero but for rounding
            assert (found[name] - gradient).norm() < 1e-3 * gradient.norm(), name
