"""A cluster that is not there is said at once; a private Ray that comes up late gets more tries."""

import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest

from conf.schema.stages import ClusterConfig
from rewards.ray_start import RayUnavailable
from rollout.cluster import local_ray


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_where_nothing_listens_is_one_sentence(scheme: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, never listening: a connection is refused
        address = f"{scheme}127.0.0.1:{taken.getsockname()[1]}"
        with (
            pytest.raises(RayUnavailable, match="no Ray cluster answers at cluster.address"),
            local_ray(ClusterConfig(address=address)),
        ):
            pass


class Late:
    """In place of Ray: its processes start, and it gives up on them, `failures` times."""

    def __init__(self, failures: int) -> None:
        self.left = failures
        self.started: list[subprocess.Popen[bytes]] = []

    def init(self, **_: object) -> None:
        self.started.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]))
        if self.left:
            self.left -= 1
            raise Exception("The current node timed out during startup.")

    def shutdown(self) -> None:
        self.started[-1].kill()


def test_a_private_ray_that_comes_up_late_is_started_again_and_leaves_nothing(monkeypatch) -> None:
    late = Late(2)
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=late.init, shutdown=late.shutdown))
    with local_ray(ClusterConfig()):
        first, second, third = late.started
        assert first.wait(5) == second.wait(5) == -9
        assert third.poll() is None
    assert third.wait(5) == -9


def test_a_private_ray_that_never_comes_up_is_one_sentence(monkeypatch) -> None:
    late = Late(9)
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=late.init, shutdown=late.shutdown))
    with (
        pytest.raises(RayUnavailable, match="on this machine: The current node timed out"),
        local_ray(ClusterConfig()),
    ):
        pass
    assert len(late.started) == 3
    late.shutdown()
    for process in late.started:
        assert process.wait(5) == -9
