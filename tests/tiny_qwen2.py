"""The policy of tests: a Qwen2 with random weights that a CPU trains in milliseconds. Imports torch when called."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import Qwen2ForCausalLM


def tiny_qwen2(*, seed: int = 0, **settings: Any) -> "Qwen2ForCausalLM":
    """50 tokens, width 32, 2 layers of 4 query and 2 key heads, tied embeddings, weights large enough to tell tokens
    apart; float32. The same arguments give the same weights.

    Args:
        seed: of torch's generator, which goes on from there.
        settings: of Qwen2Config, in place of these.
    """
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    usual = {
        "vocab_size": 50,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "initializer_range": 0.2,
        "tie_word_embeddings": True,
    }
    torch.manual_seed(seed)
    return Qwen2ForCausalLM(Qwen2Config(**usual | settings))
