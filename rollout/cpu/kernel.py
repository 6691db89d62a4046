"""decoder.c: compiled for this machine, and called with tensors."""

import ctypes
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from rollout.cpu.siblings import siblings
from rollout.errors import EngineStartFailed

SOURCE = Path(__file__).with_name("decoder.c")
TILE, CHUNK = 32, 32
"""As in the sources: heads and blocks are multiples of the one, query heads of a key head at most the other."""


def _fields(**types: str) -> list[tuple[str, type]]:
    """Fields of a C struct, by type: names separated by spaces."""
    kinds = {"pointers": ctypes.c_void_p, "longs": ctypes.c_long, "floats": ctypes.c_float}
    return [(name, kinds[kind]) for kind, names in types.items() for name in names.split()]


class _Layer(ctypes.Structure):
    _fields_ = _fields(pointers="input_norm qkv qkv_bias out post_norm gate_up down cache")


class _Heads(ctypes.Structure):
    _fields_ = _fields(longs="queries keys width", floats="scaling")


class _Model(ctypes.Structure):
    _fields_ = [
        *_fields(pointers="layers norm angles", longs="count hidden intermediate block_stride size"),
        ("heads", _Heads),
        *_fields(floats="epsilon"),
    ]


class _Rows(ctypes.Structure):
    _fields_ = _fields(pointers="table lengths order starts shared", longs="groups table_stride longest")


class _Step(ctypes.Structure):
    _fields_ = [("rows", _Rows), *_fields(longs="count"), *_fields(pointers="positions slots hidden")]


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """One layer's float32 tensors, weights [out, in]; Q, K: features of all query and key heads; I: intermediate."""

    input_norm: torch.Tensor
    """[H]."""
    qkv: torch.Tensor
    """[Q + 2 K, H]."""
    qkv_bias: torch.Tensor
    """[Q + 2 K]."""
    out: torch.Tensor
    """[H, Q]."""
    post_norm: torch.Tensor
    """[H]."""
    gate_up: torch.Tensor
    """[2 I, H]."""
    down: torch.Tensor
    """[H, I]."""
    cache: torch.Tensor
    """[blocks, key heads, S, 2 D]: for each block and head the keys, [D, S], and the values, [S, D]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """A Qwen2 between its embeddings and its output layer."""

    layers: Sequence[Layer]
    norm: torch.Tensor
    """[H]: the last one."""
    angles: torch.Tensor
    """[positions, D]: cosines, then sines, of the rotations of half a head's features."""
    heads: int
    key_heads: int
    scaling: float
    """Of attention scores."""
    epsilon: float
    """Of norms."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """One new token of each of N sequences."""

    positions: torch.Tensor
    """[N] int64."""
    slots: torch.Tensor
    """[N] int64: block times S plus place in it, where the token's keys and values belong."""
    table: torch.Tensor
    """[N, B] int32: blocks of each sequence."""
    lengths: torch.Tensor
    """[N] int32: tokens of each, the new one included."""


def compile_kernel(compiler: str = "cc", machine: str = "native") -> ctypes.CDLL:
    """SOURCE, compiled for this machine, or for one of the compiler's names. Raises EngineStartFailed."""
    with TemporaryDirectory() as folder:
        library = Path(folder) / "decoder.so"
        command = [compiler, "-O3", f"-march={machine}", "-shared", "-fPIC", str(SOURCE), "-o", str(library), "-lm"]
        try:
            done = subprocess.run(command, check=False, capture_output=True, text=True)
            if done.returncode:
                raise _no_kernel(compiler, done.stderr)
            return ctypes.CDLL(str(library))
        except OSError as error:
            raise _no_kernel(compiler, str(error)) from error


def _no_kernel(compiler: str, reason: str) -> EngineStartFailed:
    lines = reason.splitlines() or ["it gave no reason"]
    first = next((line for line in lines if "error" in line), lines[0])
    return EngineStartFailed(
        "rollout.engine.fused_decoding needs a C compiler (or set it to false), and "
        f"{compiler} did not compile {SOURCE.name}: {first}"
    )


class Kernel:
    """One model's forward pass. It reads the model's tensors where they lay when it was made."""

    def __init__(self, library: ctypes.CDLL, model: Model) -> None:
        self._decode = library.decode
        self._model = model
        self._layers = (_Layer * len(model.layers))(*map(_layer, model.layers))
        cache = model.layers[0].cache
        _, key_heads, self._size, kept = cache.shape
        width = model.angles.shape[1]
        assert all(layer.cache.shape == cache.shape for layer in model.layers)
        assert all(tensor.is_contiguous() and tensor.dtype == torch.float32 for tensor in (model.norm, model.angles))
        assert (key_heads, kept) == (model.key_heads, 2 * width)
        assert self._size % TILE == width % TILE == 0
        assert model.heads // key_heads <= CHUNK
        self._arguments = _Model(
            layers=ctypes.addressof(self._layers),
            norm=model.norm.data_ptr(),
            angles=model.angles.data_ptr(),
            count=len(model.layers),
            hidden=len(model.norm),
            intermediate=model.layers[0].down.shape[1],
            block_stride=cache.stride(0),
            size=self._size,
            heads=_Heads(model.heads, key_heads, width, model.scaling),
            epsilon=model.epsilon,
        )

    def decode(self, rows: Rows, hidden: torch.Tensor) -> None:
        """A forward pass: embeddings `hidden` [N, H] become what the output layer reads; keys and values are kept.

        Raises MemoryError.
        """
        assert len(rows.table) == len(rows.lengths) == len(rows.positions) == len(rows.slots) == len(hidden)
        assert all(tensor.is_contiguous() for tensor in (rows.positions, rows.slots, rows.lengths, hidden))
        assert rows.table.stride(1) == 1
        assert hidden.dtype == torch.float32
        assert hidden.shape[1] == len(self._model.norm)
        assert rows.table.dtype == rows.lengths.dtype == torch.int32
        assert rows.positions.dtype == rows.slots.dtype == torch.int64
        found = siblings(rows.table.numpy(), rows.lengths.numpy(), self._size)
        step = _Step(
            rows=_Rows(
                table=rows.table.data_ptr(),
                lengths=rows.lengths.data_ptr(),
                order=found.order.ctypes.data,
                starts=found.starts.ctypes.data,
                shared=found.shared.ctypes.data,
                groups=len(found.shared),
                table_stride=rows.table.stride(0),
                longest=found.longest,
            ),
            count=len(hidden),
            positions=rows.positions.data_ptr(),
            slots=rows.slots.data_ptr(),
            hidden=hidden.data_ptr(),
        )
        if self._decode(ctypes.byref(self._arguments), ctypes.byref(step)):
            raise MemoryError("no memory for the forward pass of sampled tokens")


def _layer(layer: Layer) -> _Layer:
    tensors = [getattr(layer, name) for name, _ in _Layer._fields_]
    assert all(tensor.is_contiguous() and tensor.dtype == torch.float32 for tensor in tensors)
    return _Layer(*(tensor.data_ptr() for tensor in tensors))
