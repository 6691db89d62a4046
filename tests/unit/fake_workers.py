"""Workers of a rollout pool that exist in this process alone, and do what a test tells them to."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from conf.schema.rollout import RolloutConfig, SamplingConfig
from rewards.carriers import SqlTask
from rollout.carriers import Completion, Group, Prompt
from rollout.errors import RolloutError, WeightsSuperseded, WorkerDied
from rollout.pool import RolloutPool
from rollout.requests import GenerationRequest, SampledGroup
from rollout.weights.handle import EngineLife, NcclHandle, SharedMemoryHandle, SyncReport, WeightHandle

TASK = SqlTask(id="t", db_id="d", question="?", gold_sqls=("SELECT 1",), databases=("d.sqlite",))


def handle(version: int) -> SharedMemoryHandle:
    return SharedMemoryHandle(version=version, machine="m", pid=1, fd=1, inode=1, size=1, tensors=())


def broadcast(version: int, engines: Sequence[EngineLife]) -> NcclHandle:
    return NcclHandle(
        version=version, tensors=(), session=1, address="a", port=1, world_size=1 + len(engines), buffer_bytes=1,
        buffers=1, engines=tuple(engines),
    )  # fmt: skip


def sampled(request: GenerationRequest, version: int) -> SampledGroup:
    """The request's group, each completion one token of that version's weights."""
    one = Completion(text="", token_ids=(1,), logprobs=(0.0,), version_spans=((0, version),), finish_reason="stop")
    return SampledGroup(id=request.id, completions=(one,) * request.n)


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
    hung_lives: set[int] = field(default_factory=set)
    """Lives that neither finish a group nor take weights; their calls fail when they are killed."""
    drains: bool = False
    """Weights are taken when no group is left, as with rollout.in_flight=wait."""
    superseded: set[int] = field(default_factory=set)
    """Versions whose weights cannot be read any more."""
    pace_s: float = 0.001
    notes: list[str] = field(default_factory=list)
    updated: list[tuple[int, int, int]] = field(default_factory=list)
    """(life, version, first rank) of every update that a worker took."""

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
        self._killed = asyncio.Event()

    async def start(self, timeout_s: float) -> int:
        await asyncio.sleep(0)
        if self._fleet.start_errors:
            raise self._fleet.start_errors.pop(0)
        return 0

    async def submit(self, requests: Sequence[GenerationRequest]) -> None:
        for request in requests:
            self._fleet.begun.append((self._life, request.id, self._version))
        self._queue.extend(requests)

    async def collect(self, wait_s: float) -> tuple[SampledGroup, ...]:
        deaf = self._life in self._fleet.deaf_lives | self._fleet.hung_lives
        await asyncio.sleep(wait_s if deaf else self._fleet.pace_s)
        held = {request.id for request in self._queue}
        if self._dead or held & (self._fleet.deadly | self._fleet.deadly_once):
            self._dead = True
            self._fleet.deadly_once -= held
            raise WorkerDied(f"life {self._life} ended")
        groups: list[SampledGroup] = []
        if self._queue and not deaf:
            groups.append(sampled(self._queue.pop(0), self._version))
        return tuple(groups)

    async def abort(self, group_ids: Sequence[str]) -> None:
        self._fleet.aborted.extend(group_ids)
        self._queue = [request for request in self._queue if request.id not in group_ids]

    async def update_weights(self, handle: WeightHandle, rank_offset: int) -> SyncReport:
        if self._life in self._fleet.hung_lives:
            await self._killed.wait()
        while self._fleet.drains and self._queue:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.002)
        if self._dead:
            raise WorkerDied(f"life {self._life} died during its update")
        if handle.version in self._fleet.superseded:
            raise WeightsSuperseded("gone")
        if self._life in self._fleet.refusing_lives:
            raise WorkerDied(f"life {self._life} refused")
        self._version = handle.version
        self._fleet.updated.append((self._life, handle.version, rank_offset))
        return SyncReport(version=handle.version, pause_s=0.1 + self._life, transfer_s=0.2, resume_s=0.3, in_flight=1)

    def kill(self) -> None:
        self._fleet.killed.append(self._life)
        self._dead = True
        self._killed.set()


@asynccontextmanager
async def started(fleet: Fleet, workers: int, **settings: float | str) -> AsyncIterator[RolloutPool]:
    """A pool of the fleet's workers, closed at the block's end; `settings`: of the rollout section."""
    config = RolloutConfig.model_validate({"start_timeout_s": 2.0, "group_timeout_s": 2.0} | settings)
    pool = RolloutPool(config, [fleet.factory] * workers, max_model_len=100, note=fleet.notes.append)
    await pool.start()
    try:
        yield pool
    finally:
        await pool.close()


async def ask(pool: RolloutPool, name: str, n: int = 2) -> Group:
    prompt = Prompt(task=TASK, text=name, token_ids=(1, 2, 3))
    return await pool.generate(prompt, group_id=name, n=n, sampling=SamplingConfig(max_tokens=10))


async def strand(fleet: Fleet, pool: RolloutPool, name: str) -> None:
    """Publishes version 1 and loses its weights: who replaces the worker that dies of group `name` cannot load them."""
    await pool.update_weights(handle(1))
    fleet.superseded = {1}
    fleet.deadly_once = {name}
