"""The kernel for sampled tokens computes a Qwen2's forward pass; real compiler, no engine."""

import ctypes
import platform
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import DynamicCache, Qwen2Config, Qwen2Model

from conf.schema.rollout import EngineConfig
from rollout.cpu.decoder import install
from rollout.cpu.kernel import Kernel, Layer, Model, Rows, compile_kernel
from rollout.cpu.siblings import siblings
from rollout.errors import EngineStartFailed
from rollout.vllm_backend import _speed_up

pytestmark = pytest.mark.integration

WIDTH, HIDDEN, INNER, VOCABULARY = 64, 83, 96, 50


@pytest.fixture(scope="module", params=["native", "x86-64-v3"])
def library(request: pytest.FixtureRequest) -> ctypes.CDLL:
    """With registers of 64 bytes, where this machine has them, and of 32."""
    if platform.machine() not in ("x86_64", "AMD64") and request.param != "native":
        pytest.skip("for x86 alone")
    return compile_kernel(machine=request.param)


def tables(prefixes: list[list[int]], own: list[int], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Blocks and lengths of rows that begin with the given blocks and have so many tokens of their own after them."""
    lengths = np.array([len(blocks) * size + tokens for blocks, tokens in zip(prefixes, own, strict=True)], np.int32)
    most = int(lengths.max()) // size + 1
    new = iter(range(100, 100 + most * len(lengths)))
    return np.array([(blocks + [next(new) for _ in range(most)])[:most] for blocks in prefixes], np.int32), lengths


def policy(heads: int, key_heads: int) -> Qwen2Model:
    torch.manual_seed(0)
    shape = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=INNER,
        num_hidden_layers=2,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        head_dim=WIDTH,
        initializer_range=0.2,
    )
    model = Qwen2Model(shape).eval()
    for name, parameter in model.named_parameters():
        if "norm" in name or "bias" in name:
            torch.nn.init.normal_(parameter, 0.5, 0.5)
    return model


def angles(model: Qwen2Model, positions: int) -> torch.Tensor:
    cos, sin = model.rotary_emb(torch.zeros(1), torch.arange(positions)[None])
    return torch.cat([cos[0, :, : WIDTH // 2], sin[0, :, : WIDTH // 2]], dim=1).contiguous()


def kernels_model(model: Qwen2Model, caches: list[torch.Tensor], positions: int) -> Model:
    layers = []
    for layer, cache in zip(model.layers, caches, strict=True):
        attention, mlp = layer.self_attn, layer.mlp
        projected = (attention.q_proj, attention.k_proj, attention.v_proj)
        layers.append(
            Layer(
                input_norm=layer.input_layernorm.weight,
                qkv=torch.cat([part.weight for part in projected]),
                qkv_bias=torch.cat([part.bias for part in projected]),
                out=attention.o_proj.weight,
                post_norm=layer.post_attention_layernorm.weight,
                gate_up=torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]),
                down=mlp.down_proj.weight,
                cache=cache,
            )
        )
    return Model(
        layers=layers,
        norm=model.norm.weight,
        angles=angles(model, positions),
        heads=model.config.num_attention_heads,
        key_heads=model.config.num_key_value_heads,
        scaling=WIDTH**-0.5,
        epsilon=model.config.rms_norm_eps,
    )


CASES = {
    "completions of two prompts, mixed": ([[1, 2, 3], [8, 9], [1, 2, 3], [1, 2], [8, 9]], [4, 6, 1, 32, 33]),
    "alone": ([[], [], [], []], [1, 32, 33, 200]),
    "more queries than are taken at once": ([[5, 6, 7, 4]] * 70, [1 + i % 70 for i in range(70)]),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("heads", "key_heads", "size"), [(2, 2, 32), (16, 2, 32), (6, 3, 64), (32, 1, 32)])
@torch.no_grad()
def test_it_is_a_forward_pass(library: ctypes.CDLL, case: str, heads: int, key_heads: int, size: int) -> None:
    table, lengths = tables(*CASES[case], size)
    model = policy(heads, key_heads)
    exact = policy(heads, key_heads).double()
    # What no token has been written to may hold anything.
    caches = [torch.full((int(table.max()) + 1, key_heads, size, 2 * WIDTH), torch.nan) for _ in model.layers]
    texts = [
        torch.from_numpy(((blocks[:, None] * 7 + np.arange(size) * 3) % VOCABULARY).ravel()[:length]).long()
        for blocks, length in zip(table, lengths, strict=True)
    ]
    expected = []
    for text, blocks in zip(texts, table, strict=True):
        found = exact(text[None], past_key_values=DynamicCache())
        expected.append(found.last_hidden_state[0, -1])
        for cache, layer in zip(caches, found.past_key_values.layers, strict=True):
            fill(cache, blocks, layer.keys[0, :, :-1].float(), layer.values[0, :, :-1].float())
    place = lengths - 1
    slots = table[np.arange(len(table)), place // size].astype(np.int64) * size + place % size
    rows = Rows(
        positions=torch.from_numpy(place.astype(np.int64)),
        slots=torch.from_numpy(slots),
        table=torch.from_numpy(table),
        lengths=torch.from_numpy(lengths),
    )
    hidden = model.embed_tokens(torch.stack([text[-1] for text in texts]))
    Kernel(library, kernels_model(model, caches, int(lengths.max()))).decode(rows, hidden)
    torch.testing.assert_close(hidden.double(), torch.stack(expected), rtol=0, atol=2e-5)


@pytest.mark.parametrize("place", ["qkv_bias", "gate_up"])
@torch.no_grad()
def test_what_is_no_number_is_not_hidden(library: ctypes.CDLL, place: str) -> None:
    random = policy(2, 2)
    caches = [torch.zeros(2, 2, 32, 2 * WIDTH) for _ in random.layers]
    model = kernels_model(random, caches, 8)
    getattr(model.layers[0], place)[0] = torch.nan
    rows = Rows(
        positions=torch.zeros(1, dtype=torch.int64),
        slots=torch.tensor([32]),
        table=torch.ones(1, 1, dtype=torch.int32),
        lengths=torch.ones(1, dtype=torch.int32),
    )
    hidden = torch.ones(1, HIDDEN)
    Kernel(library, model).decode(rows, hidden)
    assert hidden.isnan().all()


def fill(cache: torch.Tensor, blocks: np.ndarray, keys: torch.Tensor, values: torch.Tensor) -> None:
    """`keys` and `values` [heads, tokens, D] into a layer's cache: keys [D, S], then values [S, D]."""
    heads, size = cache.shape[1:3]
    for number, (k, v) in zip(blocks, zip(keys.split(size, 1), values.split(size, 1), strict=True), strict=False):
        block = cache[number].view(heads, 2, -1)
        block[:, 0].view(heads, WIDTH, size)[:, :, : k.shape[1]] = k.transpose(1, 2)
        block[:, 1].view(heads, size, WIDTH)[:, : v.shape[1]] = v


def test_rows_are_grouped_by_all_that_they_share() -> None:
    # Two prompts of one schema (blocks 1 and 2), one with a third block; a row alone; one that is still in block 1.
    table, lengths = tables([[1, 2, 3], [1, 2], [7], [1, 2, 3], [1, 2], []], [4, 6, 8, 1, 5, 32], 32)
    table[5, 0] = 1
    found = siblings(table, lengths, 32)
    bounds = zip(found.starts[:-1], found.starts[1:], strict=True)
    groups = {tuple(sorted(found.order[a:b])): int(n) for (a, b), n in zip(bounds, found.shared, strict=True)}
    assert groups == {(0, 3): 3, (1, 4): 2, (2,): 0, (5,): 0}
    assert found.longest == 128  # of a row of 100 tokens


@pytest.mark.parametrize("compiler", ["no-such-compiler", "false"])
def test_without_a_compiler_the_setting_is_named(compiler: str) -> None:
    with pytest.raises(
        EngineStartFailed, match=rf"rollout\.engine\.fused_decoding .* {compiler} did not compile .*: \S"
    ):
        compile_kernel(compiler)


class InstallingEngine:
    """An engine that only notes what its worker is given."""

    def __init__(self) -> None:
        self.given: list[Any] = []
        manager = SimpleNamespace(coordinator=SimpleNamespace(single_type_managers=()))
        self.engine_core = SimpleNamespace(
            engine_core=SimpleNamespace(scheduler=SimpleNamespace(kv_cache_manager=manager))
        )

    def collective_rpc(self, method: Any) -> None:
        self.given.append(method)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, True),
        ({"threads": 2}, False),
        ({"dtype": "bfloat16"}, False),
        ({"enforce_eager": False}, False),
        ({"tensor_parallel_size": 2}, False),
        ({"fused_decoding": False}, False),
    ],
)
def test_which_engines_get_the_kernel(settings: dict[str, Any], expected: bool) -> None:
    engine = InstallingEngine()
    _speed_up(engine, EngineConfig(**{"dtype": "float32", **settings}))
    assert (install in engine.given) is expected
