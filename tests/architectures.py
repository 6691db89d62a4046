"""Tiny configurations of architectures of transformers, and whether the learner serves them: the table of
docs/models.md, which `python -m tests.architectures` prints. Imports transformers when called.
"""

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

Outcome = tuple[str, str]
"""("exact" or "refused") with learner.packing=shared_prefix, and with padded."""

_SIZE: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "pad_token_id": None,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_WINDOWED = {"sliding_window": 16}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "num_local_experts": 4}
_MAMBA = {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_chunk_size": 8}
_LINEAR = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
_LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8}
_LATENT |= {"head_dim": 4, "dim_model_base": 8, "num_key_value_heads": 4}

_UNSET = "unset"
"""Of an entry that an architecture computes."""

_BOTH, _PADDED, _NONE = ("exact", "exact"), ("refused", "exact"), ("refused", "refused")

ARCHITECTURES: dict[str, tuple[Outcome, str, dict[str, Any]]] = {
    "Bloom": (_PADDED, "bloom", {}),
    "Cohere": (_BOTH, "cohere", {}),
    "Cohere2": (_PADDED, "cohere2", _WINDOWED),
    "Exaone4": (_PADDED, "exaone4", _WINDOWED | {"sliding_window_pattern": 4}),
    "Falcon": (_PADDED, "falcon", {"attention_dropout": 0.1, "head_dim": _UNSET}),
    "Falcon (ALiBi)": (_NONE, "falcon", {"alibi": True, "head_dim": _UNSET}),
    "Falcon-H1": (_PADDED, "falcon_h1", _MAMBA | {"lm_head_multiplier": 0.3}),
    "Gemma": (_BOTH, "gemma", {}),
    "Gemma 2": (_PADDED, "gemma2", _WINDOWED),
    "Gemma 3": (_PADDED, "gemma3_text", _WINDOWED | {"num_hidden_layers": 6}),
    "GPT-2": (_BOTH, "gpt2", {}),
    "GPT-J": (_NONE, "gptj", {"rotary_dim": 4}),
    "GPT-NeoX": (_NONE, "gpt_neox", {}),
    "Granite": (_BOTH, "granite", {"logits_scaling": 0.25, "attention_dropout": 0.1}),
    "Llama": (_BOTH, "llama", {}),
    "Mamba 2": (_PADDED, "mamba2", {"num_heads": 8, "head_dim": 8, "state_size": 8, "n_groups": 1, "chunk_size": 8}),
    "MiniCPM3": (_PADDED, "minicpm3", _LATENT),
    "Mistral": (_PADDED, "mistral", _WINDOWED),
    "Mistral (no window)": (_BOTH, "mistral", {"sliding_window": None}),
    "Mixtral": (_NONE, "mixtral", _WINDOWED | _EXPERTS),
    "Nemotron": (_PADDED, "nemotron", {}),
    "OLMo 2": (_BOTH, "olmo2", {}),
    "OPT": (_BOTH, "opt", {"ffn_dim": 48, "word_embed_proj_dim": 32, "pad_token_id": 1}),
    "Phi": (_NONE, "phi", {}),
    "Phi-3": (_PADDED, "phi3", _WINDOWED | {"pad_token_id": 0}),
    "Qwen2": (_BOTH, "qwen2", {}),
    "Qwen2 (windows)": (_PADDED, "qwen2", _WINDOWED | {"use_sliding_window": True, "max_window_layers": 2}),
    "Qwen2-MoE": (_NONE, "qwen2_moe", _EXPERTS | {"shared_expert_intermediate_size": 16}),
    "Qwen3": (_BOTH, "qwen3", {}),
    "Qwen3-MoE": (_NONE, "qwen3_moe", _EXPERTS),
    "Qwen3.5": (_PADDED, "qwen3_5_text", _LINEAR),
    "RecurrentGemma": (_PADDED, "recurrent_gemma", {"attention_window_size": 16, "lru_width": 32}),
    "SmolLM3": (_BOTH, "smollm3", {}),
    "StableLM": (_PADDED, "stablelm", {}),
    "Starcoder2": (_PADDED, "starcoder2", _WINDOWED),
}
"""Name -> (what is expected, model_type, what differs from the size that all share)."""


def config_of(name: str) -> "PreTrainedConfig":
    from transformers import CONFIG_MAPPING

    _, model_type, settings = ARCHITECTURES[name]
    entries = _SIZE | settings
    return CONFIG_MAPPING[model_type](**{key: value for key, value in entries.items() if value != _UNSET})


def outcome_of(name: str) -> Outcome:
    """What the learner makes of it."""
    from trainer.learner.exactness import fault_of

    shared, padded = (fault_of(config_of(name), packing=packing) for packing in ("shared_prefix", "padded"))
    return "exact" if shared is None else "refused", "exact" if padded is None else "refused"


def row_of(name: str, outcome: Outcome) -> str:
    """Of the table in docs/models.md."""
    return f"| {name} | `{ARCHITECTURES[name][1]}` | {outcome[0]} | {outcome[1]} |"


if __name__ == "__main__":
    for each in ARCHITECTURES:
        sys.stdout.write(f"{row_of(each, outcome_of(each))}\n")
