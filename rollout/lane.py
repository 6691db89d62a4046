"""One worker of a pool through all its lives: start, serve, update, lose, restart.

Who waits for whom: the lane's task waits for its worker's next finished group, or for work; its owner is told when
the lane can take groups again, and gets back the groups of a worker that was lost. Weight updates of one lane never
overlap.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from conf.schema.rollout import RolloutConfig
from rollout.errors import RolloutError, WeightsSuperseded, WeightUpdateFailed, WorkerHung
from rollout.health import Health
from rollout.port import PortFactory, WorkerPort
from rollout.requests import GenerationRequest, SampledGroup
from rollout.weights.handle import EngineLife, SyncReport, WeightHandle

T = TypeVar("T")
_POLL_S = 1.0


@dataclass(slots=True, eq=False)
class Ticket:
    """A group that somebody waits for."""

    request: GenerationRequest
    future: asyncio.Future[SampledGroup]
    attempts: int = 0
    """Workers that were lost while they held it."""
    expiry: asyncio.TimerHandle | None = None
    """Runs while no worker has it."""


class LaneOwner(Protocol):
    """The pool, as a lane sees it."""

    reading: asyncio.Lock
    """Held while published weights are read by a replaced worker, or written."""

    def newest(self) -> tuple[int, WeightHandle | None]:
        """The published version, and where its weights lie (None: in the model folder)."""

    def lane_changed(self, lane: "Lane") -> None:
        """The lane has become ready, or was given up."""

    def lane_lost(self, lane: "Lane", tickets: Sequence[Ticket], error: RolloutError) -> None:
        """The lane's worker is gone; `tickets` need another."""

    def lane_back(self, lane: "Lane", seconds: float) -> None:
        """A new worker has taken the lost one's place, so long after the loss was noticed."""


class Lane:
    """Drives one worker."""

    def __init__(self, index: int, factory: PortFactory, config: RolloutConfig, owner: LaneOwner) -> None:
        self.index = index
        self.tickets: dict[str, Ticket] = {}
        self.health = Health(silence_limit_s=config.group_timeout_s)
        self.error: RolloutError | None = None
        """Why the lane was given up; None while it lives or may live again."""
        self._factory = factory
        self._config = config
        self._owner = owner
        self._port: WorkerPort | None = None
        self._task: asyncio.Task[None] | None = None
        self._calls: set[asyncio.Task[Any]] = set()
        self._wake = asyncio.Event()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._weights = asyncio.Lock()

    @property
    def life(self) -> EngineLife:
        """Which of the lane's workers is at work."""
        return self.index, self.health.restarts

    @property
    def outstanding(self) -> int:
        """Completions that the worker still owes."""
        return sum(ticket.request.n for ticket in self.tickets.values())

    async def start(self) -> None:
        """Bring the worker up at the newest weights; raises what its start raises."""
        self._port = self._factory()
        version = await self._port.start(self._config.start_timeout_s)
        self.health.ready(version=version, wanted=self._owner.newest()[0])
        await self._catch_up()

    def serve(self) -> None:
        """Begin to serve, in a task of the lane's own."""
        self._task = asyncio.create_task(self._live(), name=f"rollout lane {self.index}")

    def assign(self, tickets: Sequence[Ticket]) -> None:
        """Hand groups to the worker."""
        for ticket in tickets:
            self.tickets[ticket.request.id] = ticket
        self.health.assigned(self._now())
        self._wake.set()
        self._in_background(self._live_port.submit([ticket.request for ticket in tickets]))

    def forget(self, group_id: str) -> None:
        """Nobody waits for this group any more."""
        if self.tickets.pop(group_id, None) is not None and self.health.alive:
            self.health.delivered(self._now(), outstanding=len(self.tickets))
            self._in_background(self._live_port.abort([group_id]))

    async def update(self, handle: WeightHandle, rank_offset: int) -> SyncReport | None:
        """Bring the worker to `handle`'s weights; None if it could not be done: the worker is then replaced."""
        port = self._live_port
        try:
            async with self._weights:
                return await self._apply(port, handle, rank_offset)
        except RolloutError as error:
            self._fail(error, port)
            return None

    async def close(self) -> None:
        """End the worker."""
        tasks = [task for task in (self._task, *self._calls) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._port is not None:
            self._port.kill()

    async def _live(self) -> None:
        while self.error is None:
            try:
                await self._serve()
            except RolloutError as error:
                await self._revive(error)
            self._owner.lane_changed(self)

    async def _serve(self) -> None:
        """Collect finished groups until the worker fails."""
        while True:
            if not self.tickets:
                self._wake.clear()
                await self._race(self._wake.wait(), None)
                continue
            left = self.health.silence_left(self._now())
            if left is not None and left <= 0:
                raise WorkerHung(
                    f"rollout worker {self.index} finished no group within rollout.group_timeout_s="
                    f"{self._config.group_timeout_s:g} while {len(self.tickets)} were waiting"
                )
            groups = await self._race(self._live_port.collect(_POLL_S if left is None else min(_POLL_S, left)), left)
            if groups is not None:
                self._deliver(groups)

    def _deliver(self, groups: Sequence[SampledGroup]) -> None:
        for group in groups:
            ticket = self.tickets.pop(group.id, None)
            if ticket is not None and not ticket.future.done():
                ticket.future.set_result(group)
        if groups:
            self.health.delivered(self._now(), outstanding=len(self.tickets))

    async def _revive(self, error: RolloutError) -> None:
        """Replace the worker, as often as allowed."""
        lost = self._now()
        while True:
            self._lose(error)
            if self.health.restarts >= self._config.max_restarts:
                self.error = error
                return
            self.health.restarting()
            try:
                await self.start()
            except RolloutError as next_error:
                error = next_error
            else:
                self._owner.lane_back(self, self._now() - lost)
                return

    def _lose(self, error: RolloutError) -> None:
        if self._port is not None:
            self._port.kill()
        self.health.lost()
        self._failed = asyncio.get_running_loop().create_future()
        tickets, self.tickets = list(self.tickets.values()), {}
        self._owner.lane_lost(self, tickets, error)

    async def _catch_up(self) -> None:
        """Load the newest weights, unless they cannot be had now: the next publication then brings the worker in."""
        while True:
            async with self._owner.reading, self._weights:
                version, handle = self._owner.newest()
                if handle is None or self.health.version == version or not handle.replayable:
                    return
                try:
                    await self._apply(self._live_port, handle, rank_offset=0)
                except WeightsSuperseded:
                    if self._owner.newest()[1] is handle:
                        return

    async def _apply(self, port: WorkerPort, handle: WeightHandle, rank_offset: int) -> SyncReport:
        limit = self._config.group_timeout_s
        call = asyncio.ensure_future(port.update_weights(handle, rank_offset))
        # With "wait" groups come first, which have a limit of their own: that of silence.
        due = self._config.in_flight != "wait" or not self.tickets
        try:
            while not (await asyncio.wait({call}, timeout=limit))[0]:
                if due:
                    raise WeightUpdateFailed(
                        f"rollout worker {self.index} did not take the weights of version {handle.version} within"
                        f" rollout.group_timeout_s={limit:g}"
                    )
                due = not self.tickets
            report = call.result()
        finally:
            call.cancel()
        self.health.updated(version=report.version, wanted=self._owner.newest()[0])
        return report

    async def _race(self, work: Coroutine[Any, Any, T], limit_s: float | None) -> T | None:
        """`work`'s result; raises what failed elsewhere in the lane; None if the limit passed first."""
        task = asyncio.create_task(work)
        events: set[asyncio.Future[Any]] = {task, self._failed}
        try:
            await asyncio.wait(events, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
            if self._failed.done():
                self._failed.result()
            return task.result() if task.done() else None
        finally:
            if not task.done():
                task.cancel()

    def _in_background(self, call: Coroutine[Any, Any, None]) -> None:
        """Let a short call run beside the lane; its failure is the worker's."""
        task = asyncio.create_task(self._watched(call))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def _watched(self, call: Coroutine[Any, Any, None]) -> None:
        port = self._port
        try:
            await call
        except RolloutError as error:
            self._fail(error, port)

    def _fail(self, error: RolloutError, port: WorkerPort | None) -> None:
        """Has the worker replaced, unless `port`, whose failure it is, has been already."""
        if self._port is port and not self._failed.done():
            self._failed.set_exception(error)
            # Counts as heard: a second failure may come when nobody waits for it any more.
            self._failed.exception()

    @property
    def _live_port(self) -> WorkerPort:
        assert self._port is not None, "a lane is started before it is used"
        return self._port

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
