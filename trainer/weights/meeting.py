"""How the sender and the engines of an nccl broadcast find each other; plain data that travels to the learner."""

import socket
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class NcclMeeting:
    """What the sender knows beforehand; where they meet is its own choice (`meeting_place`), which the handle tells."""

    loopback: bool
    """Everybody is on the sender's machine."""
    ranks_per_engine: int
    """Tensor-parallel size."""
    timeout_s: float
    """Longest wait for the previous broadcast to end."""


def meeting_place(*, loopback: bool) -> tuple[str, int]:
    """(address, free port) of this process's machine, for others to connect to.

    The port is free when this returns and belongs to nobody: use it at once. Without `loopback` the process must be in
    a Ray actor or driver, whose node's address other machines of the cluster can reach.
    """
    address = "127.0.0.1"
    if not loopback:
        import ray

        address = ray.util.get_node_ip_address()
    with socket.socket() as probe:
        probe.bind((address, 0))
        return address, probe.getsockname()[1]
