"""The pool against workers that die, hang and miss their weights: each group arrives once, under the newest."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NoReturn

import pytest

from conf.schema.rollout import RolloutConfig, SamplingConfig
from rewards.carriers import SqlTask
from rollout.carriers import Completion, Group, Prompt
from rollout.errors import (
    EngineStartFailed,
    PoolExhausted,
    PromptTooLongForEngine,
    RolloutError,
    WeightsSuperseded,
    WorkerDied,
)
from rollout.pool import RolloutPool
from rollout.requests import GenerationRequest, Harvest, SampledGroup
from rollout.weights.handle import SharedMemoryHandle, SyncReport, WeightHandle
from trainer.guard import unless_lost
from trainer.learner.errors import LearnerLost

TASK = SqlTask(id="t", db_id="d", question="?", gold_sqls=("SELECT 1",), databases=("d.sqlite",))


def handle(version: int) -> SharedMemoryHandle:
    return SharedMemoryHandle(version=version, machine="m", pid=1, fd=1, inode=1, size=1, tensors=())


@dataclass
class Fleet:
    """What the workers do, and what was done to them."""

    begun: list[tuple[int, str, int]] = field(default_factory=list)
    """(life, group, version) of every group that a worker began."""
    aborted: list[str] = field(default_factory=list)
    killed: list[int] = field(default_factory=list)
    lives: int = 0
    deadly: set[str] = field(default_factory=set)
    """Groups that kill every worker that has them."""
    deadly_once: set[str] = field(default_factory=set)
    """Groups that kill the next worker that has them."""
    start_errors: list[RolloutError] = field(default_factory=list)
    deaf_lives: set[int] = field(default_factory=set)
    """Lives that never finish a group."""
    refusing_lives: set[int] = field(default_factory=set)
    """Lives that fail their weight update."""
    superseded: set[int] = field(default_factory=set)
    """Versions whose weights cannot be read any more."""
    pace_s: float = 0.001
    notes: list[str] = field(default_factory=list)

    def factory(self) -> "FakeWorker":
        self.lives += 1
        return FakeWorker(self, self.lives - 1)


class FakeWorker:
    """A worker's port, without the worker."""

    def __init__(self, fleet: Fleet, life: int) -> None:
        self._fleet, self._life = fleet, life
        self._queue: list[GenerationRequest] = []
        self._version = 0
        self._dead = False

    async def start(self, timeout_s: float) -> int:
        await asyncio.sleep(0)
        if self._fleet.start_errors:
            raise self._fleet.start_errors.pop(0)
        return 0

    async def submit(self, requests: Sequence[GenerationRequest]) -> None:
        for request in requests:
            self._fleet.begun.append((self._life, request.id, self._version))
        self._queue.extend(requests)

    async def collect(self, wait_s: float) -> Harvest:
        await asyncio.sleep(wait_s if self._life in self._fleet.deaf_lives else self._fleet.pace_s)
        held = {request.id for request in self._queue}
        if self._dead or held & (self._fleet.deadly | self._fleet.deadly_once):
            self._dead = True
            self._fleet.deadly_once -= held
            raise WorkerDied(f"life {self._life} ended")
        groups: list[SampledGroup] = []
        if self._queue and self._life not in self._fleet.deaf_lives:
            request = self._queue.pop(0)
            one = Completion(
                text="", token_ids=(1,), logprobs=(0.0,), version_spans=((0, self._version),), finish_reason="stop"
            )
            groups.append(SampledGroup(id=request.id, completions=(one,) * request.n))
        return Harvest(groups=tuple(groups), pending=len(self._queue), version=self._version, steps=0)

    async def abort(self, group_ids: Sequence[str]) -> None:
        self._fleet.aborted.extend(group_ids)
        self._queue = [request for request in self._queue if request.id not in group_ids]

    async def update_weights(self, handle: WeightHandle, rank_offset: int) -> SyncReport:
        await asyncio.sleep(0.002)
        if handle.version in self._fleet.superseded:
            raise WeightsSuperseded("gone")
        if self._life in self._fleet.refusing_lives:
            raise WorkerDied(f"life {self._life} refused")
        self._version = handle.version
        return SyncReport(version=handle.version, pause_s=0.1 + self._life, transfer_s=0.2, resume_s=0.3, in_flight=1)

    def kill(self) -> None:
        self._fleet.killed.append(self._life)
        self._dead = True


def config(**settings: float) -> RolloutConfig:
    return RolloutConfig.model_validate({"start_timeout_s": 2.0, "group_timeout_s": 2.0} | settings)


async def start(fleet: Fleet, workers: int, **settings: float) -> RolloutPool:
    pool = RolloutPool(config(**settings), [fleet.factory] * workers, max_model_len=100, note=fleet.notes.append)
    await pool.start()
    return pool


async def ask(pool: RolloutPool, name: str, n: int = 2) -> Group:
    prompt = Prompt(task=TASK, text=name, token_ids=(1, 2, 3))
    return await pool.generate(prompt, group_id=name, n=n, sampling=SamplingConfig(max_tokens=10))


def test_groups_go_to_the_worker_that_owes_least() -> None:
    async def run() -> None:
        fleet = Fleet()
        pool = await start(fleet, 2)
        groups = await asyncio.gather(ask(pool, "big", 10), *(ask(pool, f"small{i}", 2) for i in range(4)))
        assert [group.id for group in groups] == ["big", "small0", "small1", "small2", "small3"]
        assert len(groups[0].completions) == 10
        assert groups[1].prompt.text == "small0"
        assert {name for life, name, _ in fleet.begun if life == 0} == {"big"}
        await pool.close()
        assert sorted(fleet.killed) == [0, 1]

    asyncio.run(run())


def test_a_lost_workers_groups_are_sampled_again_under_the_newest_weights() -> None:
    async def run() -> None:
        fleet = Fleet()
        pool = await start(fleet, 1)
        await pool.update_weights(handle(7))
        fleet.deadly_once = {"g1"}
        groups = await asyncio.gather(*(ask(pool, f"g{i}") for i in range(3)))
        assert [group.id for group in groups] == ["g0", "g1", "g2"]
        assert {group.oldest_version for group in groups} == {7}
        assert all(version == 7 for _, _, version in fleet.begun)
        assert (fleet.lives, pool.restarts) == (2, 1)
        assert [name for _, name, _ in fleet.begun] == ["g0", "g1", "g2"] * 2
        assert fleet.notes == [
            "life 0 ended (3 groups to sample again, 3 restarts left)",
            "rollout worker 0 is back after 0.0 s",
        ]
        await pool.close()

    asyncio.run(run())


def test_a_group_that_kills_its_workers_is_given_up_and_the_rest_goes_on() -> None:
    async def run() -> None:
        fleet = Fleet(deadly={"poison"})
        pool = await start(fleet, 1, max_restarts=5)
        with pytest.raises(PoolExhausted, match="group poison was lost with 3 workers"):
            await ask(pool, "poison")
        assert (await ask(pool, "fine")).id == "fine"
        await pool.close()

    asyncio.run(run())


def test_a_silent_worker_is_replaced_within_the_limit() -> None:
    async def run() -> None:
        fleet = Fleet(deaf_lives={0})
        pool = await start(fleet, 1, group_timeout_s=0.2)
        began = asyncio.get_running_loop().time()
        assert (await ask(pool, "g")).id == "g"
        assert 0.15 < asyncio.get_running_loop().time() - began < 1.0
        assert fleet.killed == [0]
        await pool.close()

    asyncio.run(run())


def test_restarts_are_limited_and_the_last_cause_is_told() -> None:
    async def run() -> None:
        fleet = Fleet(deaf_lives={0, 1, 2, 3})
        pool = await start(fleet, 1, group_timeout_s=0.05, max_restarts=1)
        with pytest.raises(PoolExhausted, match="no rollout worker is left after 1 restarts.*finished no group"):
            await ask(pool, "g")
        with pytest.raises(PoolExhausted, match="no rollout worker is left"):
            await ask(pool, "late")
        await pool.close()

    asyncio.run(run())


def test_a_start_that_fails_ends_all_workers_and_keeps_its_error() -> None:
    async def run() -> None:
        fleet = Fleet(start_errors=[EngineStartFailed("bad settings")])
        with pytest.raises(EngineStartFailed, match="bad settings"):
            await start(fleet, 2)
        assert sorted(fleet.killed) == [0, 1]

    asyncio.run(run())


def test_update_reports_the_slowest_worker_and_replaces_one_that_missed() -> None:
    async def run() -> None:
        fleet = Fleet()
        pool = await start(fleet, 3)
        report = await pool.update_weights(handle(1))
        assert (report.version, report.pause_s, report.in_flight, report.restarted) == (1, 2.1, 3, 0)
        fleet.refusing_lives = {0}
        report = await pool.update_weights(handle(2))
        assert (report.restarted, pool.version) == (1, 2)
        groups = await asyncio.gather(*(ask(pool, f"g{i}") for i in range(9)))
        assert {group.oldest_version for group in groups} == {2}
        await pool.close()

    asyncio.run(run())


def test_update_waits_for_a_replacement_when_every_worker_missed() -> None:
    async def run() -> None:
        fleet = Fleet(refusing_lives={0})
        pool = await start(fleet, 1)
        report = await pool.update_weights(handle(3))
        assert (report.version, report.restarted) == (3, 1)
        assert (await ask(pool, "g")).oldest_version == 3
        await pool.close()

    asyncio.run(run())


def test_a_replacement_whose_weights_are_gone_waits_for_the_next_publication() -> None:
    async def run() -> None:
        fleet = Fleet()
        pool = await start(fleet, 1)
        await pool.update_weights(handle(1))
        fleet.superseded = {1}
        fleet.deadly_once = {"g"}
        job = asyncio.create_task(ask(pool, "g"))
        await asyncio.sleep(0.05)
        assert pool.states() == ["stale (0 groups)"]
        await pool.update_weights(handle(2))
        assert (await job).oldest_version == 2
        await pool.close()

    asyncio.run(run())


def test_no_new_group_begins_while_weights_change() -> None:
    async def run() -> None:
        fleet = Fleet(pace_s=0.0005)
        pool = await start(fleet, 2)
        versions = []
        for version in range(1, 6):
            update = asyncio.create_task(pool.update_weights(handle(version)))
            await asyncio.sleep(0)
            groups = await asyncio.gather(*(ask(pool, f"{version}-{i}") for i in range(4)))
            versions += [(version, group.oldest_version) for group in groups]
            await update
        assert all(published == begun for published, begun in versions)
        await pool.close()

    asyncio.run(run())


def test_random_deaths_lose_nothing_and_deliver_nothing_twice() -> None:
    async def run(seed: int) -> None:
        chance = random.Random(seed)
        fleet = Fleet()
        pool = await start(fleet, 3, max_restarts=100)
        names = [f"g{i}" for i in range(60)]

        async def chaos() -> None:
            for version in range(1, 15):
                if version in (2, 5):
                    fleet.deadly_once = {chance.choice(names[30:])}
                await asyncio.sleep(0.004)
                await pool.update_weights(handle(version))

        jobs = [asyncio.create_task(ask(pool, name)) for name in names]
        trouble = asyncio.create_task(chaos())
        groups = await asyncio.gather(*jobs)
        await trouble
        assert [group.id for group in groups] == names
        assert 1 <= pool.restarts <= 2
        await pool.close()

    for seed in range(3):
        asyncio.run(run(seed))


def test_a_cancelled_caller_frees_the_worker() -> None:
    async def run() -> None:
        fleet = Fleet(deaf_lives={0})
        pool = await start(fleet, 1)
        job = asyncio.create_task(ask(pool, "g"))
        await asyncio.sleep(0.01)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        await asyncio.sleep(0.01)
        assert fleet.aborted == ["g"]
        assert pool.states() == ["ready (0 groups)"]
        await pool.close()

    asyncio.run(run())


def test_what_cannot_be_asked_is_refused_at_once() -> None:
    async def run() -> None:
        pool = await start(Fleet(pace_s=0.01), 1)
        long = Prompt(task=TASK, text="", token_ids=(1,) * 91)
        with pytest.raises(PromptTooLongForEngine, match="task t: prompt of 91 tokens plus max_tokens=10"):
            await pool.generate(long, group_id="g", n=1, sampling=SamplingConfig(max_tokens=10))
        first = asyncio.create_task(ask(pool, "twice"))
        await asyncio.sleep(0)
        with pytest.raises(ValueError, match="in flight"):
            await ask(pool, "twice")
        await first
        await pool.close()
        with pytest.raises(PoolExhausted):
            await asyncio.wait_for(ask(pool, "after"), 5)

    asyncio.run(run())


async def learner_that_ends(after_s: float) -> NoReturn:
    await asyncio.sleep(after_s)
    raise LearnerLost("learner rank 0 was lost")


@pytest.mark.parametrize("lost_after_s", [0.0, 0.1])
def test_a_pool_exhausted_together_with_the_learner_is_the_learners_loss(lost_after_s: float) -> None:
    async def run() -> None:
        fleet = Fleet(deadly={"g"})
        pool = await start(fleet, 1, max_restarts=0)

        async def job() -> None:
            await ask(pool, "g")

        with pytest.raises(LearnerLost, match="rank 0 was lost"):
            await unless_lost(job(), learner_that_ends(lost_after_s), cause_s=5.0)
        await pool.close()

    asyncio.run(run())


def test_workers_that_wait_for_weights_lost_with_the_learner_hold_up_nobody() -> None:
    async def run() -> None:
        fleet = Fleet()
        pool = await start(fleet, 1)
        await pool.update_weights(handle(1))
        fleet.superseded = {1}
        fleet.deadly_once = {"g"}
        cancelled: list[str] = []

        async def job() -> None:
            try:
                await ask(pool, "g")
            except asyncio.CancelledError:
                cancelled.append(pool.states()[0])
                raise

        began = asyncio.get_running_loop().time()
        with pytest.raises(LearnerLost):
            await unless_lost(job(), learner_that_ends(0.1))
        # The pool alone would have given the group up after 4 s.
        assert asyncio.get_running_loop().time() - began < 1.0
        assert cancelled == ["stale (0 groups)"]
        await pool.close()

    asyncio.run(run())


def test_a_pool_exhausted_for_its_own_reason_ends_the_run_with_it() -> None:
    async def run() -> None:
        fleet = Fleet(deadly={"g"})
        pool = await start(fleet, 1, max_restarts=0)

        async def job() -> None:
            await ask(pool, "g")

        began = asyncio.get_running_loop().time()
        with pytest.raises(PoolExhausted, match="no rollout worker is left after 0 restarts.*life 0 ended"):
            await unless_lost(job(), learner_that_ends(3600), cause_s=0.1)
        assert asyncio.get_running_loop().time() - began >= 0.1
        await pool.close()

    asyncio.run(run())
