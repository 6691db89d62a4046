"""The engine's thread: commands between steps, groups handed over once, failures told to everybody who waits."""

import threading
import time

import pytest

from rollout.errors import EngineStartFailed, GenerationFailed
from rollout.loop import EngineLoop
from rollout.requests import SampledGroup


class CountingEngine:
    """Finishes one queued group every third step."""

    def __init__(self) -> None:
        self.steps = 0
        self.version = 0
        self.queue: list[str] = []
        self.threads: set[int] = set()

    @property
    def pending(self) -> int:
        return len(self.queue)

    def step(self) -> tuple[SampledGroup, ...]:
        self.threads.add(threading.get_ident())
        self.steps += 1
        if self.queue[0] == "bad":
            raise ZeroDivisionError("in the engine")
        if self.steps % 3:
            return ()
        return (SampledGroup(id=self.queue.pop(0), completions=()),)


def collect_all(loop: EngineLoop, count: int) -> list[str]:
    found: list[str] = []
    while len(found) < count:
        groups = loop.collect(5.0)
        assert groups, "nothing came within the limit"
        found += [group.id for group in groups]
    return found


def test_groups_come_once_and_one_thread_owns_the_engine() -> None:
    engine = CountingEngine()
    loop = EngineLoop(lambda: engine)
    assert loop.wait_ready(5.0) == 0
    loop.call(lambda e: e.queue.extend(["a", "b"]), 5.0)
    assert collect_all(loop, 2) == ["a", "b"]
    assert loop.collect(0.0) == ()
    assert loop.call(lambda e: threading.get_ident(), 5.0) not in (threading.get_ident(), None)
    assert len(engine.threads) == 1
    loop.stop()


class GatedEngine(CountingEngine):
    """Takes no step before its gate opens."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()

    def step(self) -> tuple[SampledGroup, ...]:
        self.gate.wait(5.0)
        return super().step()


def test_a_command_may_wait_until_nothing_is_pending_while_others_do_not() -> None:
    engine = GatedEngine()
    loop = EngineLoop(lambda: engine)
    order: list[tuple[str, int]] = []
    loop.call(lambda e: e.queue.extend(["a", "b"]), 5.0)
    callers = [
        threading.Thread(
            target=loop.call,
            args=(lambda e, name=name: order.append((name, e.pending)), 5.0),
            kwargs={"when_idle": name == "when idle"},
        )
        for name in ("when idle", "at once")
    ]
    for caller in callers:
        caller.start()
        time.sleep(0.1)
    engine.gate.set()
    for caller in callers:
        caller.join(5.0)
    assert order == [("at once", 2), ("when idle", 0)]
    assert collect_all(loop, 2) == ["a", "b"]
    loop.call(lambda e: order.append(("idle", e.pending)), 5.0, when_idle=True)
    assert order[-1] == ("idle", 0)
    loop.stop()


def test_who_waits_for_an_idle_engine_hears_of_its_end() -> None:
    loop = EngineLoop(CountingEngine)
    loop.call(lambda e: e.queue.append("bad"), 5.0)
    with pytest.raises(GenerationFailed):
        loop.call(lambda e: None, 5.0, when_idle=True)


def test_an_idle_engine_is_not_stepped() -> None:
    engine = CountingEngine()
    loop = EngineLoop(lambda: engine)
    loop.call(lambda e: None, 5.0)
    time.sleep(0.05)
    assert engine.steps == 0
    loop.stop()


def test_a_commands_error_is_its_callers_alone() -> None:
    loop = EngineLoop(CountingEngine)
    with pytest.raises(KeyError):
        loop.call(lambda e: {}["x"], 5.0)
    loop.call(lambda e: e.queue.append("a"), 5.0)
    assert collect_all(loop, 1) == ["a"]
    loop.stop()


def test_a_step_that_fails_is_told_to_pollers_and_callers() -> None:
    loop = EngineLoop(CountingEngine)
    loop.call(lambda e: e.queue.append("bad"), 5.0)
    with pytest.raises(GenerationFailed, match="ZeroDivisionError: in the engine"):
        loop.collect(5.0)
    with pytest.raises(GenerationFailed):
        loop.call(lambda e: None, 5.0)


def test_a_start_that_fails_keeps_its_type() -> None:
    def build() -> CountingEngine:
        raise EngineStartFailed("no such model")

    loop = EngineLoop(build)
    with pytest.raises(EngineStartFailed, match="no such model"):
        loop.wait_ready(5.0)
    with pytest.raises(EngineStartFailed):
        loop.call(lambda e: None, 5.0)
