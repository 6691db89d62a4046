"""Where the sender of an nccl broadcast offers to meet: its own machine, a port that is free."""

import socket

import pytest

from conf.errors import ConfigError
from trainer.weights.builder import sender_factory
from trainer.weights.meeting import meeting_place


def test_the_place_is_on_this_machine_and_can_be_listened_at() -> None:
    address, port = meeting_place(loopback=True)
    with socket.create_server((address, port)) as server, socket.create_connection((address, port), timeout=5) as one:
        accepted, _ = server.accept()
        accepted.close()
        assert one.getpeername() == ("127.0.0.1", port)
        # Another session would not be offered a port in use.
        assert meeting_place(loopback=True)[1] != port


def test_nccl_without_a_number_of_engines_is_refused() -> None:
    with pytest.raises(ConfigError, match="rollout.weight_transfer=nccl"):
        sender_factory("nccl", "bfloat16")
