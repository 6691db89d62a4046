"""SIGTERM, by real signals to this process."""

import asyncio
import os
import signal

import pytest

from trainer.preemption import Preempted, Preemption


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


async def forever(ended: list[str]) -> None:
    try:
        await asyncio.sleep(60)
    finally:
        ended.append("work")


def test_a_wait_ends_with_preempted_and_its_work_is_cancelled() -> None:
    preemption, ended = Preemption(), []

    async def run() -> None:
        with preemption.listening(), preemption.gently():
            asyncio.get_running_loop().call_later(0.05, terminate)
            await preemption.unless(forever(ended))

    with pytest.raises(Preempted, match="SIGTERM") as caught:
        asyncio.run(run())
    assert ended == ["work"]
    assert caught.value.exit_code == 143


def test_work_between_two_waits_is_not_interrupted() -> None:
    preemption, reached = Preemption(), []

    async def run() -> None:
        with preemption.listening(), preemption.gently():
            assert not preemption.asked
            terminate()
            await asyncio.sleep(0.05)
            assert preemption.asked
            reached.append("the step's end")
            await preemption.unless(forever(reached))

    with pytest.raises(Preempted):
        asyncio.run(run())
    assert reached[0] == "the step's end"


def test_work_that_outlasts_the_grace_period_is_given_up() -> None:
    preemption, ended = Preemption(grace_s=0.1), []

    async def run() -> None:
        with preemption.listening(), preemption.gently():
            terminate()
            await forever(ended)

    with pytest.raises(Preempted, match=r"mid-step.*grace_s=0\.1"):
        asyncio.run(run())
    assert ended == ["work"]


def test_a_checkpoint_after_a_safe_point_takes_the_time_it_needs() -> None:
    preemption, saved = Preemption(grace_s=0.1), []

    async def run() -> None:
        with preemption.listening(), preemption.gently():
            try:
                terminate()
                await preemption.unless(forever([]))
            except Preempted:
                await asyncio.sleep(0.3)
                saved.append("checkpoint")
                raise

    with pytest.raises(Preempted, match="^stopped by SIGTERM$"):
        asyncio.run(run())
    assert saved == ["checkpoint"]


def test_a_result_passes_through_and_an_error_too() -> None:
    preemption = Preemption()

    async def seven() -> int:
        return 7

    async def broken() -> int:
        raise ValueError("its own")

    async def run() -> int:
        with preemption.listening(), preemption.gently():
            with pytest.raises(ValueError, match="its own"):
                await preemption.unless(broken())
            return await preemption.unless(seven())

    assert asyncio.run(run()) == 7


def test_before_the_job_sigterm_is_ctrl_c_and_the_handler_is_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)

    def run() -> None:
        with Preemption().listening():
            terminate()
            signal.pause()

    with pytest.raises(KeyboardInterrupt):
        run()
    assert signal.getsignal(signal.SIGTERM) == before


def test_before_the_job_sigterm_cancels_what_an_event_loop_does_as_ctrl_c_would() -> None:
    seen: list[str] = []
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    async def starting() -> None:
        try:
            terminate()
            await asyncio.sleep(5)
        except BaseException as error:
            seen.append(type(error).__name__)
            await asyncio.sleep(0)  # the parts that have started are closed
            seen.append("closed")
            raise

    try:
        with pytest.raises(KeyboardInterrupt), Preemption().listening():
            asyncio.run(starting())
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == ["CancelledError", "closed"]
