"""What travels from the learner to every rollout worker when weights change: small, picklable, no tensors.

A handle is pulled: the learner prepares the weights, the handle says where they lie, each engine fetches them between
two of its steps. Shared-memory and ipc handles can be applied any number of times until the next publication, so a
restarted worker gets the newest weights from the last handle. An nccl handle is a broadcast and cannot be replayed.
"""

from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorSpec:
    """One tensor of the Hugging Face state dict, as it lies on the wire."""

    name: str
    dtype: str
    """torch's name of the element type, without the "torch." prefix."""
    shape: tuple[int, ...]
    offset: int = 0
    """First byte in the segment (shared memory only)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SharedMemoryHandle:
    """Weights in an anonymous file of the learner, freed by the kernel when that process ends, even by SIGKILL."""

    backend: ClassVar[str] = "shared_memory"
    replayable: ClassVar[bool] = True

    version: int
    machine: str
    """Boot identifier of the machine that holds the memory."""
    pid: int
    fd: int
    """File descriptor in the learner's process."""
    inode: int
    """Guards against a recycled process id."""
    size: int
    """Bytes, header included."""
    tensors: tuple[TensorSpec, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class IpcHandle:
    """Weights in the learner's memory on the same CUDA device, by CUDA IPC handle."""

    backend: ClassVar[str] = "ipc"
    replayable: ClassVar[bool] = True

    version: int
    tensors: tuple[TensorSpec, ...]
    handles: tuple[dict[str, tuple[Any, ...]], ...]
    """For each tensor: device UUID -> arguments of torch's rebuild_cuda_tensor."""


EngineLife = tuple[int, int]
"""One life of one worker: its number, and how often it has been replaced."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NcclHandle:
    """A broadcast that the learner's rank 0 has begun; every worker that it names must join it."""

    backend: ClassVar[str] = "nccl"
    replayable: ClassVar[bool] = False

    version: int
    tensors: tuple[TensorSpec, ...]
    session: int
    """Number of the communicator; a new one is formed whenever its engines are others."""
    engines: tuple[EngineLife, ...]
    """Who takes part, by rank."""
    address: str
    port: int
    world_size: int
    """The sender and every engine rank."""
    buffer_bytes: int
    buffers: int


WeightHandle = SharedMemoryHandle | IpcHandle | NcclHandle


@dataclass(frozen=True, kw_only=True, slots=True)
class SyncReport:
    """What one weight update cost, in seconds; over several workers the longest of each."""

    version: int
    pause_s: float
    """From the request until the engine stood still between two steps."""
    transfer_s: float
    """Reading, converting and loading."""
    resume_s: float
    """Resetting the prefix cache."""
    in_flight: int = 0
    """Completions that continue under the new weights."""
    aborted: int = 0
    """Completions that begin anew under the new weights (rollout.in_flight=abort)."""
    aborted_tokens: int = 0
    """Tokens that those had."""
    restarted: int = 0
    """Workers that missed the update and were restarted."""
