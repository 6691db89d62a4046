"""The Ray that a driver uses: a private one that ends with it, or a running cluster."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

from conf.errors import QuorumError
from conf.schema.stages import ClusterConfig

OBJECT_STORE_BYTES = 512 * 2**20
"""Groups and training sequences are small; weights never pass through the object store."""


START_TRIES = 3
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
            _start_private(cluster.cpus or os.cpu_count() or 1)
        else:
            ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    except Exception as error:
        # Any other kind is ours to see.
        if not _came_up_late(error) and not isinstance(error, RuntimeError | OSError | ValueError):
            raise
        where = f"at {cluster.address}" if cluster.address else "on this machine"
        raise ClusterUnavailable(f"Ray could not be used {where}: {' '.join(str(error).split())}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _start_private(cpus: int) -> None:
    """Ray gives its own processes 30 s to come up, which a loaded machine may exceed: more than one try."""
    import ray

    for tries_left in reversed(range(START_TRIES)):
        before = set(psutil.Process().children(recursive=True))
        try:
            # "local" never joins another Ray that runs on this machine.
            ray.init(
                address="local",
                num_cpus=cpus,
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                log_to_driver=False,
                logging_level="ERROR",
            )
            return
        except Exception as error:
            if not tries_left or not _came_up_late(error):
                raise
            for process in set(psutil.Process().children(recursive=True)) - before:
                with suppress(psutil.NoSuchProcess):
                    process.kill()


def _came_up_late(error: Exception) -> bool:
    """Ray raises a bare Exception when its processes do not come up in time."""
    return type(error) is Exception


def _check_answers(address: str) -> None:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():  # "auto": Ray looks for a cluster on this machine and says at once when there is none
        return
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
    except OSError as error:
        raise ClusterUnavailable(f"no Ray cluster answers at cluster.address={address}: {error}") from error
