"""Any order of requests, publications, deaths, silences and refused weights: no group is lost, none begins stale."""

import asyncio
from collections import Counter
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from conf.schema.rollout import RolloutConfig, SamplingConfig
from rollout.carriers import Group, Prompt
from rollout.errors import PoolExhausted, WorkerDied
from rollout.pool import RolloutPool
from rollout.requests import GenerationRequest, SampledGroup
from rollout.weights.handle import SyncReport, WeightHandle
from tests.unit.fake_workers import TASK, handle, sampled

SILENCE_S = 0.03
LOST_LIMIT = 3
EVENTS = st.lists(st.sampled_from(["ask", "ask", "publish", "die", "hang", "refuse", "pause"]), min_size=4, max_size=25)


class Trouble:
    """What the next worker that is called does."""

    def __init__(self) -> None:
        self.die = self.hang = self.refuse = False
        self.begun: Counter[str] = Counter()


class Worker:
    """A port whose process ends, stands still or refuses weights when it is told to."""

    def __init__(self, trouble: Trouble) -> None:
        self._trouble = trouble
        self._version = 0
        self._queue: list[tuple[GenerationRequest, int]] = []
        self._hangs = False

    async def start(self, timeout_s: float) -> int:
        await asyncio.sleep(0)
        return 0

    async def submit(self, requests: Sequence[GenerationRequest]) -> None:
        self._queue += [(request, self._version) for request in requests]
        self._trouble.begun.update(request.id for request in requests)

    async def collect(self, wait_s: float) -> tuple[SampledGroup, ...]:
        if self._trouble.hang:
            self._hangs, self._trouble.hang = True, False
        if self._hangs:
            await asyncio.sleep(60)
        await asyncio.sleep(0.001)
        if self._trouble.die:
            self._trouble.die = False
            raise WorkerDied("ended")
        groups = []
        if self._queue:
            groups.append(sampled(*self._queue.pop(0)))
        return tuple(groups)

    async def abort(self, group_ids: Sequence[str]) -> None:
        self._queue = [entry for entry in self._queue if entry[0].id not in group_ids]

    async def update_weights(self, handle: WeightHandle, rank_offset: int) -> SyncReport:
        if self._hangs:
            await asyncio.sleep(60)
        await asyncio.sleep(0.001)
        if self._trouble.refuse:
            self._trouble.refuse = False
            raise WorkerDied("refused")
        self._version = handle.version
        return SyncReport(version=handle.version, pause_s=0.0, transfer_s=0.0, resume_s=0.0)

    def kill(self) -> None:
        self._hangs = True


async def play(events: Sequence[str], workers: int) -> None:
    trouble, published = Trouble(), 0
    limits = RolloutConfig(start_timeout_s=20.0, group_timeout_s=SILENCE_S, max_restarts=1000)
    pool = RolloutPool(limits, [lambda: Worker(trouble)] * workers, max_model_len=100)
    await pool.start()
    asked: list[tuple[str, int, asyncio.Task[Group]]] = []
    for event in events:
        if event == "ask":
            name = f"g{len(asked)}"
            call = pool.generate(
                Prompt(task=TASK, text=name, token_ids=(1,)), group_id=name, n=2, sampling=SamplingConfig(max_tokens=1)
            )
            asked.append((name, published, asyncio.create_task(call)))
        elif event == "publish":
            await pool.update_weights(handle(published + 1))
            published += 1
        elif event == "pause":
            await asyncio.sleep(0.003)
        else:
            setattr(trouble, event, True)
    for name, version, task in asked:
        try:
            group = await asyncio.wait_for(task, 20)
        except PoolExhausted:
            assert trouble.begun[name] >= LOST_LIMIT, "given up although it was not lost that often"
            continue
        assert group.id == name
        assert len(group.completions) == 2
        assert group.oldest_version >= version, "begun under weights older than those published when it was asked for"
    await pool.close()


@settings(max_examples=60, deadline=None)
@given(EVENTS, st.integers(1, 3))
def test_every_group_arrives_once_or_with_an_error_and_none_begins_stale(events: list[str], workers: int) -> None:
    asyncio.run(play(events, workers))
