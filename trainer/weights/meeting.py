"""Where an nccl broadcast begins; plain data that travels to the learner."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class NcclMeeting:
    """Where and with how many the sender meets the engines."""

    address: str
    """Of the learner's rank 0, reachable from every worker."""
    first_port: int
    """Communicator k meets at first_port + k."""
    engine_ranks: int
    """Rollout workers times tensor-parallel size."""
    timeout_s: float
    """Longest wait for the previous broadcast to end."""
