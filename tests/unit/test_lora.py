"""Adapters: nothing else is trained, and merged weights are the model with its adapters."""

import pytest
import torch
from transformers import Qwen2ForCausalLM

from conf.schema.learner import LoraConfig
from tests.tiny_qwen2 import tiny_qwen2
from trainer.learner.gather import gathered_trainable, gathered_weights
from trainer.learner.lora import add_adapters


def tiny_model() -> Qwen2ForCausalLM:
    shape = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 24}
    return tiny_qwen2(**shape, num_attention_heads=2, num_key_value_heads=1).eval()


def test_merged_weights_equal_the_model_with_adapters():
    plain, adapted = tiny_model(), tiny_model()
    add_adapters(adapted, LoraConfig(rank=4, alpha=8.0), seed=3)
    ids = torch.tensor([[1, 5, 9, 2, 7]])
    torch.testing.assert_close(adapted(ids).logits, plain(ids).logits)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    before = plain(ids).logits
    weights = dict(gathered_weights(adapted, sharded=False))
    assert set(weights) == {name for name, _ in plain.named_parameters()}
    plain.load_state_dict({**weights, "lm_head.weight": weights["model.embed_tokens.weight"]})
    assert (plain(ids).logits - before).abs().max() > 0.1
    torch.testing.assert_close(plain(ids).logits, adapted(ids).logits, rtol=1e-5, atol=1e-5)


def test_only_adapters_are_trained_and_they_begin_alike_everywhere():
    first, second = tiny_model(), tiny_model()
    add_adapters(first, LoraConfig(rank=4), seed=3)
    torch.manual_seed(99)
    add_adapters(second, LoraConfig(rank=4), seed=3)
    trained = dict(gathered_trainable(first, sharded=False))
    # q, k, v, o, gate, up, down in two layers, two matrices each
    assert len(trained) == 28
    assert all(".lora_" in name for name in trained)
    for name, value in gathered_trainable(second, sharded=False):
        assert torch.equal(value, trained[name])
    first(torch.tensor([[1, 2, 3]])).logits.sum().backward()
    assert {name for name, p in first.named_parameters() if p.grad is not None} == set(trained)


@pytest.mark.parametrize("alpha", [4.0, 16.0])
def test_the_scale_is_alpha_over_rank(alpha):
    model = tiny_model()
    base = model.model.layers[0].mlp.up_proj.weight.detach().clone()
    add_adapters(model, LoraConfig(rank=2, alpha=alpha), seed=0)
    layer = model.model.layers[0].mlp.up_proj
    torch.nn.init.ones_(layer.lora_A["default"].weight)
    torch.nn.init.ones_(layer.lora_B["default"].weight)
    weights = dict(gathered_weights(model, sharded=False))
    # ones [24, 2] @ ones [2, 16] is 2 everywhere, times alpha / 2
    torch.testing.assert_close(weights["model.layers.0.mlp.up_proj.weight"], base + alpha)
