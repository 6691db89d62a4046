"""Operations with gradients by hand against plain ones: values, gradients, and which learners use them."""

from dataclasses import replace
from types import ModuleType

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

from conf.schema.algo import AlgoConfig
from conf.schema.learner import LearnerConfig
from tests.shared_row import shared_row
from tests.tiny_qwen2 import tiny_qwen2
from trainer.learner.attention.joint import joint_attention
from trainer.learner.fused import cpu, gpu
from trainer.learner.spec import LearnerSpec


def test_a_norm_has_exact_values_and_gradients() -> None:
    generator = torch.Generator().manual_seed(0)
    module = Qwen2RMSNorm(32).double()
    nn.init.normal_(module.weight, generator=generator)
    x = torch.randn(2, 5, 32, generator=generator, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(2, 5, 32, generator=generator, dtype=torch.float64)
    # transformers' own rounds to float32 in between.
    expected = module.weight * x / torch.sqrt(x.square().mean(-1, keepdim=True) + module.variance_epsilon)
    expected_gradients = torch.autograd.grad(expected, (x, module.weight), upstream)
    module.__class__ = cpu.FusedNorm
    found = module(x)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, (x, module.weight), upstream), expected_gradients)


@pytest.mark.parametrize("device", [cpu, gpu])
@pytest.mark.parametrize("rows", [1, 3])
def test_a_fused_policy_is_the_same_function_with_the_same_gradients(
    rows: int, device: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Compiled they are tested by tests/gpu.
    monkeypatch.setattr(gpu, "compiled", lambda function: function)
    model = tiny_qwen2(vocab_size=40, tie_word_embeddings=False)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter)
    ids = torch.randint(0, 40, (rows, 9))
    positions = torch.arange(9).expand(rows, 9) + 3
    names = [name for name, _ in model.named_parameters()]

    def run() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        logits = model(input_ids=ids, position_ids=positions, use_cache=False).logits
        logits.square().sum().backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        model.zero_grad(set_to_none=True)
        return logits.detach(), gradients

    expected, expected_gradients = run()
    device.fuse(model)
    kinds = [type(module) for module in model.modules()]
    assert (kinds.count(device.FusedNorm), kinds.count(device.FusedAttention)) == (2 * 2 + 1, 2)
    assert [name for name, _ in model.named_parameters()] == names
    found, gradients = run()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert gradients.keys() == expected_gradients.keys()
    for name, gradient in expected_gradients.items():
        error = (gradients[name] - gradient).norm() / gradient.norm().clamp(min=1e-6)
        assert error < 1e-5, name


@pytest.mark.parametrize(
    ("settings", "plain"),
    [
        ({"dtype": "float32"}, True),
        ({"dtype": "float32", "zero_stage": 2}, True),
        # Sharded weights are whole while their own module runs; adapters and autocast are untested there.
        ({"dtype": "float32", "zero_stage": 3}, False),
        ({"dtype": "bfloat16"}, False),
        ({"dtype": "float32", "lora": {"rank": 4}}, False),
    ],
)
def test_only_plain_learners_are_fused(settings: dict[str, object], plain: bool) -> None:
    spec = LearnerSpec(
        policy="p",
        learner=LearnerConfig.model_validate(settings),
        algo=AlgoConfig(),
        completion_budget=8,
        total_updates=1,
    )
    assert spec.fused == plain
    assert replace(spec, accelerator="gpu").fused


@pytest.mark.parametrize(("heads", "groups"), [(4, 2), (2, 2), (6, 1)])
def test_joint_attention_has_the_values_and_gradients_of_masked_attention(heads: int, groups: int) -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = ((5, (3, 1, 4)), (7, (2,)), (6, (8, 1, 1, 3)))
    batch, visible = shared_row(lengths)
    layout, count = batch.layout, batch.forwarded
    assert layout is not None
    query, key, value = (
        torch.randn(count, width, 8, generator=generator, dtype=torch.float64, requires_grad=True)
        for width in (heads, groups, groups)
    )
    upstream = torch.randn(count, heads, 8, generator=generator, dtype=torch.float64)
    expected = functional.scaled_dot_product_attention(
        *(x.transpose(0, 1).unsqueeze(0) for x in (query, key, value)), attn_mask=visible, scale=0.3, enable_gqa=True
    )[0].transpose(0, 1)
    found = joint_attention(query, key, value, layout, 0.3)
    torch.testing.assert_close(found, expected)
    inputs = (query, key, value)
    torch.testing.assert_close(
        torch.autograd.grad(found, inputs, upstream), torch.autograd.grad(expected, inputs, upstream)
    )
