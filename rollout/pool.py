"""Routes groups to N workers, replaces those that fail, and keeps all of them at the newest weights.

Guarantees: every `generate` gets its group exactly once, or one typed error; a group of a lost worker is sampled
again from the start by another; a new group begins only on a worker with the newest published weights (health.py).
Who waits for whom: `generate` waits for a READY worker and then for its group; `update_weights` waits for every live
worker, and new groups wait for it; a worker that is being replaced holds up nobody else, but for the moment in which
it loads weights, which `publish` waits for. Limits: rollout.start_timeout_s for a start, rollout.group_timeout_s for an
update or for silence, their sum for a group that no worker can take.
Lives on one event loop; no method may be called from another thread.
"""

import asyncio
import dataclasses
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from conf.schema.rollout import RolloutConfig, SamplingConfig
from rollout.carriers import Group, Prompt
from rollout.errors import PoolExhausted, PromptTooLongForEngine, RolloutError, WeightUpdateFailed
from rollout.health import State
from rollout.lane import Lane, Ticket
from rollout.port import PortFactory
from rollout.requests import GenerationRequest
from rollout.weights.handle import EngineLife, NcclHandle, SyncReport, WeightHandle

_ATTEMPTS = 3
"""Workers that a group may be lost with before its caller gets an error."""
Note = Callable[[str], None]


class RolloutPool:
    """N workers behind one `generate`."""

    def __init__(
        self,
        config: RolloutConfig,
        factories: Sequence[PortFactory],
        *,
        max_model_len: int,
        version: int = 0,
        note: Note = lambda text: None,
    ) -> None:
        """Make a pool; `start` brings it up.

        Args:
            factories: one for each worker.
            max_model_len: the engines' context, prompt plus completion, tokens.
            version: policy version of the weights in the model folder.
            note: is told of every worker lost and replaced, one line each.
        """
        self._note = note
        self._config = config
        self._max_model_len = max_model_len
        self._newest: tuple[int, WeightHandle | None] = (version, None)
        self._lanes = [Lane(index, factory, config, self) for index, factory in enumerate(factories)]
        self._waiting: deque[Ticket] = deque()
        self._known: set[str] = set()
        self._dispatching = False
        self._changed = asyncio.Event()
        self._publishing = asyncio.Lock()
        self.reading = asyncio.Lock()
        """Held while published weights are read by a replaced worker, or written."""
        self._last_error: RolloutError | None = None
        self._closed = False

    async def start(self) -> None:
        """Start all workers at once; the first that cannot start ends the others and raises its error."""
        try:
            await asyncio.gather(*(lane.start() for lane in self._lanes))
        except BaseException:  # a start that is cancelled leaves no worker behind either
            await self.close()
            raise
        for lane in self._lanes:
            lane.serve()

    @property
    def version(self) -> int:
        """Policy version of the newest published weights."""
        return self._newest[0]

    @property
    def restarts(self) -> int:
        """Workers replaced so far."""
        return sum(lane.health.restarts for lane in self._lanes)

    @property
    def engines(self) -> tuple[EngineLife, ...]:
        """The workers that can take weights now."""
        return tuple(lane.life for lane in self._lanes if lane.health.alive)

    @property
    def stranded(self) -> bool:
        """Whether workers live, none holds the newest weights, and none is about to: a broadcast is not sent twice.
        Publishing that version again helps, and so does a newer one."""
        if self._publishing.locked() or self.reading.locked():
            return False
        return {lane.health.state for lane in self._lanes if lane.error is None} == {State.STALE}

    def states(self) -> list[str]:
        """State of each worker, for progress displays and stall reports."""
        return [f"{lane.health.state} ({len(lane.tickets)} groups)" for lane in self._lanes]

    async def generate(self, prompt: Prompt, *, group_id: str, n: int, sampling: SamplingConfig) -> Group:
        """Sample `n` completions of `prompt` in one request.

        Args:
            group_id: unique among the groups in flight.

        Raises:
            PromptTooLongForEngine: the prompt leaves no room for sampling.max_tokens.
            PoolExhausted: no worker is left, none became ready in time, or this group was lost three times.
            ValueError: a group of this id is in flight.
        """
        self._admit(prompt, group_id, sampling)
        request = GenerationRequest(id=group_id, prompt_ids=prompt.token_ids, n=n, sampling=sampling)
        ticket = Ticket(request=request, future=asyncio.get_running_loop().create_future())
        self._known.add(group_id)
        self._queue(ticket)
        try:
            sampled = await ticket.future
        finally:
            self._forget(ticket)
        return Group(id=group_id, prompt=prompt, completions=sampled.completions)

    async def publish(self, publication: Awaitable[WeightHandle]) -> SyncReport:
        """Waits for new weights and brings every worker to them, as `update_weights` does. While they are written, over
        older ones perhaps, no replaced worker reads."""
        async with self.reading:
            handle = await publication
            self._newest = (handle.version, handle)
        return await self.update_weights(handle)

    async def update_weights(self, handle: WeightHandle) -> SyncReport:
        """Bring every worker to the handle's weights; rollout.in_flight says what becomes of the groups in flight.

        The handle must stay readable until the next update: replaced workers load it. A worker that misses the update
        is replaced; the call returns when at least one worker has the weights, or none can have them any more
        (`stranded`).

        Raises:
            PoolExhausted: no worker could be brought to these weights.
        """
        async with self._publishing:
            self._newest = (handle.version, handle)
            for lane in self._lanes:
                lane.health.published(handle.version)
            engines = handle.engines if isinstance(handle, NcclHandle) else self.engines
            live = {lane.life: lane for lane in self._lanes if lane.health.alive}
            ranks = self._config.engine.tensor_parallel_size
            updates = [
                live[life].update(handle, rank_offset=1 + place * ranks)
                for place, life in enumerate(engines)
                if life in live
            ]
            reports = [report for report in await asyncio.gather(*updates) if report is not None]
            self._dispatch_soon()
            if not reports and handle.replayable:
                await self._until_ready()
        return _merge(reports, handle.version, missed=len(self._lanes) - len(reports))

    async def close(self) -> None:
        """End all workers; whoever waits for a group gets a typed error."""
        self._closed = True
        await asyncio.gather(*(lane.close() for lane in self._lanes))
        self._fail_all(PoolExhausted("the rollout pool was closed"))

    def newest(self) -> tuple[int, WeightHandle | None]:
        return self._newest

    def lane_changed(self, lane: Lane) -> None:
        self._changed.set()
        self._dispatch_soon()
        if all(each.error is not None for each in self._lanes):
            self._fail_all(self._exhausted())

    def lane_lost(self, lane: Lane, tickets: Sequence[Ticket], error: RolloutError) -> None:
        self._last_error = error
        left = self._config.max_restarts - lane.health.restarts
        self._note(f"{error} ({len(tickets)} groups to sample again, {left} restarts left)")
        for ticket in reversed(tickets):
            ticket.attempts += 1
            if ticket.attempts >= _ATTEMPTS:
                self._refuse(ticket, f"group {ticket.request.id} was lost with {_ATTEMPTS} workers, the last: {error}")
            else:
                self._queue(ticket, first=True)

    def lane_back(self, lane: Lane, seconds: float) -> None:
        self._note(f"rollout worker {lane.index} is back after {seconds:.1f} s")

    def _admit(self, prompt: Prompt, group_id: str, sampling: SamplingConfig) -> None:
        if group_id in self._known:
            raise ValueError(f"group {group_id} is in flight already")
        if self._closed:
            raise PoolExhausted("the rollout pool is closed")
        if all(lane.error is not None for lane in self._lanes):
            raise self._exhausted()
        if len(prompt.token_ids) + sampling.max_tokens > self._max_model_len:
            raise PromptTooLongForEngine(
                f"task {prompt.task.id}: prompt of {len(prompt.token_ids)} tokens plus max_tokens={sampling.max_tokens}"
                f" exceeds the engine's context of {self._max_model_len}"
            )

    def _queue(self, ticket: Ticket, *, first: bool = False) -> None:
        limit = self._config.start_timeout_s + self._config.group_timeout_s
        message = f"no rollout worker became ready for group {ticket.request.id} within {limit:g} s"
        ticket.expiry = asyncio.get_running_loop().call_later(limit, self._refuse, ticket, message)
        if first:
            self._waiting.appendleft(ticket)
        else:
            self._waiting.append(ticket)
        self._dispatch_soon()

    def _dispatch_soon(self) -> None:
        """Requests of one turn of the event loop travel together."""
        if not self._dispatching:
            self._dispatching = True
            asyncio.get_running_loop().call_soon(self._dispatch)

    def _dispatch(self) -> None:
        """Give every waiting group to the ready worker that owes the fewest completions."""
        self._dispatching = False
        owed = {lane: lane.outstanding for lane in self._lanes if lane.health.state is State.READY}
        shares: dict[Lane, list[Ticket]] = {lane: [] for lane in owed}
        while self._waiting and owed:
            ticket = self._waiting.popleft()
            if ticket.future.done():
                continue
            if ticket.expiry is not None:
                ticket.expiry.cancel()
            lane = min(owed, key=lambda each: (owed[each], each.index))
            owed[lane] += ticket.request.n
            shares[lane].append(ticket)
        for lane, tickets in shares.items():
            if tickets:
                lane.assign(tickets)

    def _forget(self, ticket: Ticket) -> None:
        """Its caller has the group, an error, or has been cancelled."""
        if ticket.expiry is not None:
            ticket.expiry.cancel()
        self._known.discard(ticket.request.id)
        for lane in self._lanes:
            lane.forget(ticket.request.id)

    async def _until_ready(self) -> None:
        """Wait until a replaced worker has the newest weights."""
        limit = self._config.start_timeout_s
        try:
            async with asyncio.timeout(limit):
                while not any(lane.health.state is State.READY for lane in self._lanes):
                    if all(lane.error is not None for lane in self._lanes):
                        raise self._exhausted()
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError as error:
            raise WeightUpdateFailed(
                f"no rollout worker has the weights of version {self.version} after rollout.start_timeout_s={limit:g}"
            ) from error

    def _exhausted(self) -> PoolExhausted:
        return PoolExhausted(
            f"no rollout worker is left after {self.restarts} restarts, the last failure: {self._last_error}"
        )

    def _fail_all(self, error: PoolExhausted) -> None:
        for ticket in self._waiting:
            self._refuse(ticket, str(error))
        self._waiting.clear()
        for lane in self._lanes:
            for ticket in lane.tickets.values():
                self._refuse(ticket, str(error))

    @staticmethod
    def _refuse(ticket: Ticket, message: str) -> None:
        if not ticket.future.done():
            ticket.future.set_exception(PoolExhausted(message))


def _merge(reports: Sequence[SyncReport], version: int, *, missed: int) -> SyncReport:
    """The longest of each stage over the workers that took part."""
    if not reports:
        return SyncReport(version=version, pause_s=0.0, transfer_s=0.0, resume_s=0.0, restarted=missed)
    return dataclasses.replace(
        reports[0],
        pause_s=max(r.pause_s for r in reports),
        transfer_s=max(r.transfer_s for r in reports),
        resume_s=max(r.resume_s for r in reports),
        in_flight=sum(r.in_flight for r in reports),
        aborted=sum(r.aborted for r in reports),
        aborted_tokens=sum(r.aborted_tokens for r in reports),
        restarted=missed,
    )
