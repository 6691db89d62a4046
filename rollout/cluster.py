"""The Ray that a driver uses: a private one that ends with it, or a running cluster."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from conf.schema.stages import ClusterConfig
from rewards.ray_start import RayUnavailable, connect_ray, start_private_ray

CONNECT_S = 10.0
"""Longest wait for a cluster's address to answer; Ray itself would try for twenty minutes."""


@contextmanager
def local_ray(cluster: ClusterConfig) -> Iterator[None]:
    """A private Ray that ends with the run, or a connection to `cluster.address`. Raises RayUnavailable."""
    if cluster.address is not None:
        _check_answers(cluster.address)
    import ray

    try:
        if cluster.address is None:
            start_private_ray(cluster.cpus or os.cpu_count() or 1)
        else:
            connect_ray(cluster.address)
        yield
    finally:
        ray.shutdown()  # also of one that was interrupted while it started


def _check_answers(address: str) -> None:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal():  # "auto": Ray looks for a cluster on this machine and says at once when there is none
        return
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
    except OSError as error:
        raise RayUnavailable(f"no Ray cluster answers at cluster.address={address}: {error}") from error
