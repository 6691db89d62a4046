"""SIGTERM before there is anything to save: one line and exit code 143, by real signals to this process."""

import os
import signal

import pytest

from conf.cli import run_entrypoint
from conf.errors import Terminated
from conf.schema.reward_http import RewardHttpConfig
from rewards.ray_start import start_private_ray


def test_an_entrypoint_that_is_told_to_leave_says_so_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def job(_: RewardHttpConfig) -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the signal was not handled")

    before = signal.getsignal(signal.SIGTERM)
    assert run_entrypoint(RewardHttpConfig, "reward_http", job, "", ["databases=x"]) == 143
    assert capsys.readouterr().err == "stopped by SIGTERM\n"
    assert signal.getsignal(signal.SIGTERM) == before


def test_rays_own_handler_is_taken_back_and_its_exit_is_ours(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def leave(*_: object) -> None:
        raise Terminated

    def starting(**_: object) -> None:
        """As ray.init: a stack, and a handler that exits with the signal's number."""
        os.write(2, b"*** SIGTERM received at time=1 on cpu 0 ***\n")
        signal.signal(signal.SIGTERM, lambda number, _: exit(number))
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        monkeypatch.setattr("ray.init", starting)
        with pytest.raises(Terminated):
            start_private_ray(1)
        assert signal.getsignal(signal.SIGTERM) is leave
        assert capfd.readouterr().err == ""
        monkeypatch.setattr("ray.init", lambda **_: os.write(2, b"a warning of Ray's\n"))
        start_private_ray(1)
        assert capfd.readouterr().err == "a warning of Ray's\n"
    finally:
        signal.signal(signal.SIGTERM, before)
