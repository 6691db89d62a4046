"""vLLM weight-transfer engine that reads the learner's shared memory, and what each backend's update calls carry.

Weights arrive in checkpoint format and are loaded through vLLM's layerwise reload: on the CPU a plain load fails
after start where linear weights are prepacked (rollout/cpu/decoder.py has an engine keep them). Loading is not atomic:
when it fails the engine must be replaced, which the pool does.

The ipc and nccl backends are vLLM's own; only their arguments are built here. nccl has not been run.
"""

from dataclasses import dataclass, fields
from typing import Any

import torch
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

from rollout.weights.handle import IpcHandle, NcclHandle, SharedMemoryHandle, TensorSpec, WeightHandle
from rollout.weights.segment import SegmentReader


@dataclass
class SharedMemoryInitInfo(WeightTransferInitInfo):
    """Nothing to agree on beforehand: every handle is self-contained."""


@dataclass
class SharedMemoryUpdateInfo(WeightTransferUpdateInfo):
    """One whole set of weights."""

    handle: SharedMemoryHandle


class SharedMemoryWeightTransferEngine(WeightTransferEngine[SharedMemoryInitInfo, SharedMemoryUpdateInfo]):
    """Loads checkpoint-format weights from a memory segment of the learner."""

    init_info_cls = SharedMemoryInitInfo
    update_info_cls = SharedMemoryUpdateInfo

    def init_transfer_engine(self, init_info: SharedMemoryInitInfo) -> None:
        """No rendezvous."""

    def start_weight_update(self) -> None:
        initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: SharedMemoryUpdateInfo) -> None:
        """Load every tensor of the segment.

        Raises:
            WeightUpdateFailed: the segment is gone, superseded, or was rewritten while it was read.
        """
        reader = SegmentReader(update_info.handle)
        self.model.load_weights((spec.name, _view(reader, spec)) for spec in update_info.handle.tensors)
        reader.check()

    def finish_weight_update(self) -> None:
        finalize_layerwise_reload(self.model, self.model_config)
        self._repack_tied_heads()

    def shutdown(self) -> None:
        """Nothing is held between updates."""

    def _repack_tied_heads(self) -> None:
        """Prepack tied output embeddings anew.

        A tied head receives no tensor of its own, so the layerwise reload leaves it alone; on the CPU it multiplies
        with a prepacked copy of the input embedding, which would stay that of the old weights.
        """
        for module in self.model.modules():
            if isinstance(module, ParallelLMHead):
                module.quant_method.process_weights_after_loading(module)


def _view(reader: SegmentReader, spec: TensorSpec) -> torch.Tensor:
    """The tensor of `spec` as a view of the segment."""
    count = 1
    for size in spec.shape:
        count *= size
    flat = torch.frombuffer(reader.memory, dtype=torch_dtype(spec.dtype), count=count, offset=spec.offset)
    return flat.view(spec.shape)


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def torch_dtype(name: str) -> torch.dtype:
    """Element type by name; KeyError for one that weights are never sent in."""
    return DTYPES[name]


def register() -> None:
    """Make "shared_memory" known to vLLM in this process."""
    if "shared_memory" not in WeightTransferEngineFactory._registry:
        WeightTransferEngineFactory.register_engine("shared_memory", SharedMemoryWeightTransferEngine)


def init_payload(handle: WeightHandle, *, rank_offset: int) -> dict[str, Any]:
    """Arguments of vLLM's init_weight_transfer_engine for this handle's backend.

    Args:
        rank_offset: this engine's first rank in the nccl group (rank 0 is the sender).
    """
    if not isinstance(handle, NcclHandle):
        return {}
    from vllm.distributed.weight_transfer.nccl_common import NCCLWeightTransferInitInfo

    payload = {
        "master_address": handle.address,
        "master_port": handle.port,
        "world_size": handle.world_size,
        "rank_offset": rank_offset,
    }
    return payload | _packing(handle, NCCLWeightTransferInitInfo)


def update_payload(handle: WeightHandle) -> dict[str, Any]:
    """Arguments of vLLM's update_weights for this handle's backend."""
    if isinstance(handle, SharedMemoryHandle):
        return {"handle": handle}
    payload: dict[str, Any] = {
        "names": [spec.name for spec in handle.tensors],
        "dtype_names": [spec.dtype for spec in handle.tensors],
        "shapes": [list(spec.shape) for spec in handle.tensors],
    }
    if isinstance(handle, IpcHandle):
        return payload | {"ipc_handles": list(handle.handles)}
    from vllm.distributed.weight_transfer.nccl_engine import NCCLWeightTransferUpdateInfo

    return payload | _packing(handle, NCCLWeightTransferUpdateInfo)


def _packing(handle: NcclHandle, info: type) -> dict[str, Any]:
    """Buffer settings, for whichever of the two calls takes them (the update in vLLM 0.26, the rendezvous later)."""
    wire = {
        "packed": True,
        "packed_buffer_size_bytes": handle.buffer_bytes,
        "packed_num_buffers": handle.buffers,
    }
    return wire if "packed" in {field.name for field in fields(info)} else {}
