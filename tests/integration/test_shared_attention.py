"""The kernel for completions of one prompt computes attention; real compiler, no engine."""

import ctypes
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from conf.schema.rollout import EngineConfig
from rollout.cpu.shared_attention import attend, install, load_kernel, siblings
from rollout.errors import EngineStartFailed
from rollout.vllm_backend import _speed_up

pytestmark = pytest.mark.integration

WIDTH = 64


@pytest.fixture(scope="module")
def kernel() -> ctypes.CDLL:
    return load_kernel()


def tables(prefixes: list[list[int]], own: list[int], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Blocks and lengths of rows that begin with the given blocks and have so many tokens of their own after them."""
    lengths = np.array([len(blocks) * size + tokens for blocks, tokens in zip(prefixes, own, strict=True)], np.int32)
    most = int(lengths.max()) // size + 1
    new = iter(range(100, 100 + most * len(lengths)))
    return np.array([(blocks + [next(new) for _ in range(most)])[:most] for blocks in prefixes], np.int32), lengths


CASES = {
    "completions of two prompts, mixed": ([[1, 2, 3], [8, 9], [1, 2, 3], [1, 2], [8, 9]], [4, 6, 1, 32, 33]),
    "alone": ([[], [], [], []], [1, 32, 33, 200]),
    "more queries than are taken at once": ([[5, 6, 7, 4]] * 70, [1 + i % 70 for i in range(70)]),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("heads", "key_heads", "size"), [(2, 2, 32), (16, 2, 32), (6, 3, 64), (32, 1, 32)])
def test_it_is_softmax_attention(kernel: ctypes.CDLL, case: str, heads: int, key_heads: int, size: int) -> None:
    torch.manual_seed(0)
    table, lengths = map(torch.from_numpy, tables(*CASES[case], size))
    blocks = int(table.max()) + 1
    keys, values = torch.randn(2, blocks, key_heads, size, WIDTH).unbind()
    # What a row has not written yet may hold anything.
    for row, length in zip(table, lengths.tolist(), strict=True):
        block = row[(length - 1) // size]
        for part in (keys, values):
            part[block, :, (length - 1) % size + 1 :] = torch.nan
    cache = torch.cat([keys.transpose(2, 3).reshape(blocks, key_heads, -1), values.flatten(2)], dim=2)
    query = torch.randn(len(lengths), heads * WIDTH + 8)[:, 8:].view(-1, heads, WIDTH)
    output = torch.full((len(lengths), heads, WIDTH), torch.nan)
    groups = siblings(table.numpy(), lengths.numpy(), size)
    attend(kernel, query, cache.view(blocks, key_heads, size, -1), table, lengths, groups, output, scaling=0.2)
    for row, length in enumerate(lengths.tolist()):
        held = table[row].long()
        k, v = (part[held].transpose(0, 1).flatten(1, 2)[:, :length] for part in (keys, values))
        k, v = (part.repeat_interleave(heads // key_heads, dim=0).double() for part in (k, v))
        weights = (0.2 * query[row].double()[:, None] @ k.transpose(1, 2)).softmax(-1)
        torch.testing.assert_close(output[row].double(), (weights @ v)[:, 0], rtol=0, atol=5e-6)


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
        EngineStartFailed, match=rf"rollout\.engine\.shared_attention .* {compiler} did not compile .*: \S"
    ):
        load_kernel(compiler)


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
    ("settings", "expected"), [({}, True), ({"threads": 2}, False), ({"shared_attention": False}, False)]
)
def test_the_kernel_is_for_one_thread_and_can_be_declined(settings: dict[str, Any], expected: bool) -> None:
    engine = InstallingEngine()
    _speed_up(engine, EngineConfig(**settings))
    assert (install in engine.given) is expected
