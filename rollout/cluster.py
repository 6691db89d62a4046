"""The Ray that a driver uses: a private one that ends with it, or a running cluster."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from conf.errors import QuorumError
from conf.schema.stages import ClusterConfig
from rewards.private_ray import is_start_failure, start_private_ray

CONNECT_S = 10.0
"""Longest wait for a cluster's address to answer; Ray itself would try for twenty minutes."""


class ClusterUnavailable(QuorumError):
    """Ray could not be started or reached."""


@contextmanager
def local_ray(cluster: ClusterConfig) -> Iterator[None]:
    """A private Ray that ends with the run, or a connection to `cluster.address`. Raises ClusterUnavailable."""
    if cluster.address is not None:
        _check_answers(cluster.address)
    import ray

    try:
        if cluster.address is None:
            start_private_ray(cluster.cpus or os.cpu_count() or 1)
        else:
            ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    except Exception as error:
        if not is_start_failure(error):
            raise
        where = f"at {cluster.address}" if cluster.address else "on this machine"
        raise ClusterUnavailable(f"Ray could not be used {where}: {' '.join(str(error).split())}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_answers(address: str) -> None:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():  # "auto": Ray looks for a cluster on this machine and says at once when there is none
        return
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
    except OSError as error:
        raise ClusterUnavailable(f"no Ray cluster answers at cluster.address={address}: {error}") from error
