"""While completions are sampled, those of one prompt attend to it together, by the kernel of attention.c.

vLLM's kernel for CPUs takes the queries of one row at a time, so a prompt's keys and values are read once for each of
its completions: a third of an engine's time with prompts of 600 tokens. Here a batch of single tokens is divided into
groups of rows that begin with the same cache blocks. Batches that read prompts go to vLLM's kernel, and so does all
attention that this one does not know: windows, sinks, other dtypes, other layouts of the cache than "vec" (x86).
"""

import ctypes
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from vllm.model_executor.layers.attention import Attention
from vllm.v1.attention.backend import AttentionType
from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackendImpl, CPUAttentionMetadata

from rollout.errors import EngineStartFailed

SOURCE = Path(__file__).with_name("attention.c")
TILE, CHUNK = 32, 32
"""As in SOURCE: head sizes and blocks are multiples of the one, query heads of a key head at most the other."""


class _Batch(ctypes.Structure):
    """SOURCE's `struct batch`."""

    _fields_ = [
        *(
            (name, ctypes.c_void_p)
            for name in ("query", "output", "cache", "table", "lengths", "order", "starts", "shared")
        ),
        *((name, ctypes.c_long) for name in ("groups", "heads", "key_heads", "width", "size", "longest")),
        *((name, ctypes.c_long) for name in ("query_stride", "output_stride", "table_stride", "block_stride")),
        ("scaling", ctypes.c_float),
    ]


@dataclass(frozen=True, slots=True)
class Siblings:
    """Rows that begin with the same blocks: those of order[starts[g]:starts[g + 1]] have their first shared[g] in
    common, and at least one token after them."""

    order: np.ndarray
    """[N] int64."""
    starts: np.ndarray
    """[G + 1] int64."""
    shared: np.ndarray
    """[G] int64."""
    longest: int
    """Tokens that the blocks of the longest row have room for."""


def siblings(table: np.ndarray, lengths: np.ndarray, size: int) -> Siblings:
    """`table` [N, B]: the blocks of each row; `lengths` [N]: its tokens, the new one included; `size`: of a block."""
    before_last = np.arange(table.shape[1]) < ((lengths - 1) // size)[:, None]
    users = np.bincount(table[before_last], minlength=int(table.max()) + 1)
    depth = (before_last & (users[table] > 1)).sum(axis=1)
    rows = np.arange(len(table))
    last_shared = np.where(depth > 0, table[rows, np.maximum(depth, 1) - 1], -1 - rows)
    order = np.argsort(last_shared, kind="stable")
    starts = np.flatnonzero(np.diff(last_shared[order], prepend=np.iinfo(np.int64).min))
    longest = -(-int(lengths.max()) // size) * size
    return Siblings(order, np.append(starts, len(rows)), depth[order[starts]], longest)


def load_kernel(compiler: str = "cc") -> ctypes.CDLL:
    """SOURCE, compiled for this machine. Raises EngineStartFailed."""
    with TemporaryDirectory() as folder:
        library = Path(folder) / "attention.so"
        command = [compiler, "-O3", "-march=native", "-shared", "-fPIC", str(SOURCE), "-o", str(library), "-lm"]
        try:
            done = subprocess.run(command, check=False, capture_output=True, text=True)
        except OSError as error:
            raise _no_kernel(compiler, str(error)) from error
        if done.returncode:
            raise _no_kernel(compiler, done.stderr)
        return ctypes.CDLL(str(library))


def _no_kernel(compiler: str, reason: str) -> EngineStartFailed:
    first = next(iter(reason.splitlines()), "it gave no reason")
    return EngineStartFailed(
        "rollout.engine.shared_attention needs a C compiler (or set it to false), and "
        f"{compiler} did not compile {SOURCE.name}: {first}"
    )


def attend(
    kernel: ctypes.CDLL,
    query: torch.Tensor,
    cache: torch.Tensor,
    table: torch.Tensor,
    lengths: torch.Tensor,
    groups: Siblings,
    output: torch.Tensor,
    *,
    scaling: float,
) -> None:
    """Writes the attention of one new token of each row, `query` [N, Hq, D], to `output`, which is like it.

    `cache` [blocks, Hkv, S, 2 D] holds for each block and head the keys, [D, S], and the values, [S, D]; all float32.
    `table` [N, B] and `lengths` [N] int32: as in `siblings`, which found `groups`. Raises MemoryError.
    """
    rows, heads, width = query.shape
    _, key_heads, size, _ = cache.shape
    assert query.stride()[1:] == output.stride()[1:] == (width, 1)
    assert cache.is_contiguous()
    assert table.stride(1) == lengths.stride(0) == 1
    assert len(table) == len(lengths) == rows
    assert table.dtype == lengths.dtype == torch.int32
    batch = _Batch(
        query=query.data_ptr(),
        output=output.data_ptr(),
        cache=cache.data_ptr(),
        table=table.data_ptr(),
        lengths=lengths.data_ptr(),
        order=groups.order.ctypes.data,
        starts=groups.starts.ctypes.data,
        shared=groups.shared.ctypes.data,
        groups=len(groups.shared),
        heads=heads,
        key_heads=key_heads,
        width=width,
        size=size,
        longest=groups.longest,
        query_stride=query.stride(0),
        output_stride=output.stride(0),
        table_stride=table.stride(0),
        block_stride=cache.stride(0),
        scaling=scaling,
    )
    if kernel.attend(ctypes.byref(batch)):
        raise MemoryError("attention of sampled tokens: no memory for its scores")


def install(worker: Any) -> None:
    """Give a worker's attention layers the kernel, where it serves them; an argument of vLLM's `collective_rpc`. Raises
    EngineStartFailed."""
    layers = worker.vllm_config.compilation_config.static_forward_context.values()
    served = [layer for layer in layers if _serves(layer)]
    if served:
        shared = SharedAttention(load_kernel())
        for layer in served:
            layer.impl.forward = partial(shared.forward, layer.impl, layer.impl.forward)


def _serves(layer: Any) -> bool:
    if not isinstance(layer, Attention):
        return False
    impl: Any = layer.impl
    return (
        type(impl) is CPUAttentionBackendImpl
        and impl.attn_type == AttentionType.DECODER
        and (impl.alibi_slopes, impl.sinks, impl.sliding_window, impl.logits_soft_cap) == (None, None, -1, 0)
        and impl.head_size % TILE == 0
        and impl.num_queries_per_kv <= CHUNK
        and layer.isa == "vec"
        and layer.dtype == layer.kv_cache_torch_dtype == torch.float32
    )


class SharedAttention:
    """Of all layers of an engine: what is known of a step's rows is found out once."""

    def __init__(self, kernel: ctypes.CDLL) -> None:
        self._kernel = kernel
        self._step: tuple[CPUAttentionMetadata, Siblings] | None = None

    def forward(
        self,
        impl: CPUAttentionBackendImpl,
        otherwise: Callable[..., torch.Tensor],
        layer: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        kv_cache: torch.Tensor,
        attn_metadata: CPUAttentionMetadata | None,
        output: torch.Tensor,
        **others: Any,
    ) -> torch.Tensor:
        """As `otherwise`, which is CPUAttentionBackendImpl.forward: `query` and `output` [tokens, Hq, D]."""
        if attn_metadata is None or attn_metadata.max_query_len > 1 or not attn_metadata.causal:
            return otherwise(layer, query, key, value, kv_cache, attn_metadata, output, **others)
        rows = attn_metadata.num_actual_tokens
        table, lengths = attn_metadata.block_table[:rows], attn_metadata.seq_lens[:rows]
        if self._step is None or self._step[0] is not attn_metadata:
            self._step = attn_metadata, siblings(table.numpy(), lengths.numpy(), kv_cache.shape[2])
        groups = self._step[1]
        attend(self._kernel, query[:rows], kv_cache, table, lengths, groups, output[:rows], scaling=impl.scale)
        return output
