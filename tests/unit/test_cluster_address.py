"""A cluster that is not there is said at once."""

import socket

import pytest

from conf.schema.stages import ClusterConfig
from rollout.cluster import ClusterUnavailable, local_ray


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_where_nothing_listens_is_one_sentence(scheme: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, never listening: a connection is refused
        address = f"{scheme}127.0.0.1:{taken.getsockname()[1]}"
        with (
            pytest.raises(ClusterUnavailable, match="no Ray cluster answers at cluster.address"),
            local_ray(ClusterConfig(address=address)),
        ):
            pass
