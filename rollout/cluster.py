"""The Ray that a driver uses: a private one that ends with it, or a running cluster."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from conf.errors import QuorumError
from conf.schema.stages import ClusterConfig

OBJECT_STORE_BYTES = 512 * 2**20
"""Groups and training sequences are small; weights never pass through the object store."""


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
            # "local" never joins another Ray that runs on this machine.
            ray.init(
                address="local",
                num_cpus=cluster.cpus or os.cpu_count(),
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                log_to_driver=False,
                logging_level="ERROR",
            )
        else:
            ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    except Exception as error:
        # Ray raises a bare Exception when its processes do not come up in time; any other kind is ours to see.
        if type(error) is not Exception and not isinstance(error, RuntimeError | OSError | ValueError):
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
