"""While completions are sampled on a CPU, a Qwen2's forward pass is one call of decoder.c.

Most of a small policy's step is dispatch overhead: forty calls a layer through Python, vLLM's modules and torch's
dispatcher. And vLLM's attention for CPUs takes the queries of one row at a time, so a prompt's keys and values are
read once for each of its completions. Here completions of one prompt attend to it together. Batches with more than one
token of a row are vLLM's, and so is every model that this one does not know: other architectures, dtypes, attention
with windows or sinks, other layouts of the cache than "vec" (x86).
"""

from typing import Any

import torch
from vllm import _custom_ops
from vllm.forward_context import get_forward_context
from vllm.model_executor.layers.linear import UnquantizedLinearMethod
from vllm.model_executor.layers.rotary_embedding.base import RotaryEmbedding
from vllm.model_executor.models.qwen2 import Qwen2DecoderLayer, Qwen2Model
from vllm.v1.attention.backend import AttentionType
from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackendImpl

from rollout.cpu.kernel import CHUNK, TILE, Kernel, Layer, Model, Rows, compile_kernel


def keep_weights() -> None:
    """Before an engine starts: its products read weights as they were loaded, by torch. Otherwise vLLM gives oneDNN a
    copy in a layout of its own and drops them. Holds for all engines of this process from then on."""
    _custom_ops._supports_onednn = False


def install(worker: Any) -> None:
    """Give a worker's model the kernel, where it serves it; an argument of vLLM's `collective_rpc`. Raises
    EngineStartFailed."""
    model: Any = getattr(worker.model_runner.model, "model", None)
    if _serves(model):
        model.forward = Decoder(model).forward


def _serves(model: Any) -> bool:
    return type(model) is Qwen2Model and all(map(_serves_layer, model.layers))


def _serves_layer(layer: Any) -> bool:
    if type(layer) is not Qwen2DecoderLayer or layer.self_attn.qk_norm:
        return False
    rotary, attention = layer.self_attn.rotary_emb, layer.self_attn.attn
    impl = attention.impl
    return (
        type(rotary) is RotaryEmbedding
        and rotary.is_neox_style
        and rotary.rotary_dim == rotary.head_size
        and type(impl) is CPUAttentionBackendImpl
        and impl.attn_type == AttentionType.DECODER
        and (impl.alibi_slopes, impl.sinks, impl.sliding_window, impl.logits_soft_cap) == (None, None, -1, 0)
        and impl.head_size % TILE == 0
        and impl.num_queries_per_kv <= CHUNK
        and attention.isa == "vec"
        and attention.dtype == attention.kv_cache_torch_dtype == torch.float32
        and type(layer.mlp.down_proj.quant_method) is UnquantizedLinearMethod
        and layer.mlp.down_proj.weight.ndim == 2
    )


class Decoder:
    """A Qwen2Model's way through the kernel."""

    def __init__(self, model: Qwen2Model) -> None:
        """Raises EngineStartFailed."""
        self._embed, self._otherwise = model.embed_input_ids, model.forward
        self._layer = model.layers[0].self_attn.attn.layer_name
        # A weight update copies into the tensors that there are: vLLM keeps their addresses, as CUDA graphs hold them.
        self._kernel = Kernel(compile_kernel(), _model(model))

    def forward(
        self,
        input_ids: torch.Tensor,
        positions: torch.Tensor,
        intermediate_tensors: Any = None,
        inputs_embeds: Any = None,
    ) -> Any:
        """As Qwen2Model.forward: tokens and positions [N] -> [N, H]. Skips the layers' hooks of the KV connector, which
        do nothing in ours."""
        context = get_forward_context()
        metadata = context.attn_metadata[self._layer] if isinstance(context.attn_metadata, dict) else None
        whole = intermediate_tensors is None and inputs_embeds is None
        if not whole or metadata is None or metadata.max_query_len > 1 or not metadata.causal:
            return self._otherwise(input_ids, positions, intermediate_tensors, inputs_embeds)
        count = metadata.num_actual_tokens
        hidden = self._embed(input_ids)
        rows = Rows(
            positions=positions[:count],
            slots=context.slot_mapping[self._layer][:count],
            table=metadata.block_table[:count],
            lengths=metadata.seq_lens[:count],
        )
        self._kernel.decode(rows, hidden[:count])
        return hidden


def _model(model: Qwen2Model) -> Model:
    attention = model.layers[0].self_attn
    return Model(
        layers=[_layer(layer) for layer in model.layers],
        norm=model.norm.weight,
        angles=attention.rotary_emb.cos_sin_cache,
        heads=attention.num_heads,
        key_heads=attention.num_kv_heads,
        scaling=attention.scaling,
        epsilon=model.norm.variance_epsilon,
    )


def _layer(layer: Qwen2DecoderLayer) -> Layer:
    attention, mlp = layer.self_attn, layer.mlp
    return Layer(
        input_norm=layer.input_layernorm.weight,
        qkv=attention.qkv_proj.weight,
        qkv_bias=attention.qkv_proj.bias,
        out=attention.o_proj.weight,
        post_norm=layer.post_attention_layernorm.weight,
        gate_up=mlp.gate_up_proj.weight,
        down=mlp.down_proj.weight,
        cache=attention.attn.kv_cache,
    )
