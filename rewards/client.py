"""The driver's side of the reward server: routing, back-pressure, restarts. Used from one asyncio loop.

Who waits for whom: callers of `score` wait while `max_queue` groups are waiting, then for their group's results; a
group waits for a free actor; an actor may get nothing done for `timeout_s`, however much it was sent. One that dies or
stands still is replaced and its groups are sent again, alone, so that one poisonous group does not take others along; a
group lost LOST_LIMIT times is `unscorable`. An outage never becomes a reward: actors that cannot be started raise
RewardServerLost everywhere.

Whose doing a lost group is: the policy's (the golds were executed by the check before the run) if the actor's place
that lost it has scored another group since the first loss, or scores one when asked for that. The group asked for is
the last that was scored; before the first, the group's task with its gold for an answer. Otherwise it is the
infrastructure's.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from conf.schema.reward import LOST_LIMIT, RewardConfig
from rewards.carriers import Cause, RewardResult, SqlTask
from rewards.combine import Combiner
from rewards.memory_store import VerifiedTrace
from rewards.port import PortFactory, Reply
from rewards.scorer import ScoreJob
from rewards.seat import ActorLost, Memory, RewardServerLost, Seat

BATCH = 8
"""Groups sent to an actor at a time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RewardStats:
    """Counters are summed over the actors as of their last answers; groups that were given up count too, and a group
    that was scored again to learn whose doing a lost one is."""

    queue_groups: int
    """Groups that wait for an actor."""
    queue_age_s: float
    """Age of the oldest of them, seconds."""
    groups_in_flight: int
    actors: int
    actor_restarts: int
    executor_restarts: int
    tasks: int
    completions: int
    unscorable: int
    """Completions without a reward, whoever is to blame."""
    unscorable_data: int
    unscorable_policy: int
    """Those of `unscorable` that the data and the policy caused."""
    cache_entries: int
    cache_hits: int
    cache_misses: int
    memory_traces: int


@dataclass(frozen=True, kw_only=True, slots=True)
class QueuePeak:
    """The worst that the queue has been over some time."""

    groups: int
    """Most groups that waited for an actor at once."""
    age_s: float
    """Longest time from a group's arrival until an actor had it, seconds."""


@dataclass(kw_only=True, slots=True, eq=False)
class _Work:
    job: ScoreJob
    future: asyncio.Future[tuple[RewardResult, ...]]
    since: float
    """By the loop's clock, like every time here."""
    lost: int = 0
    first_lost: float = 0.0
    """Time of the first loss."""

    @property
    def age_s(self) -> float:
        return self.future.get_loop().time() - self.since


class RewardClient:
    """Owns `config.server.actors` reward actors, each made by `actors`. `await close()` ends them.

    `note` is told of every actor that is replaced, one line each.
    """

    def __init__(
        self, config: RewardConfig, actors: PortFactory, *, note: Callable[[str], None] = lambda text: None
    ) -> None:
        Combiner(config)  # an impossible combination is refused here, with its own message
        self._config = config
        self._memory = Memory()
        self._verified: set[VerifiedTrace] = set()
        """What `commit` gives to the memory. A group that was scored twice gives its traces once."""
        server = config.server
        self._seats = [Seat(actors, self._memory, timeout_s=server.timeout_s, note=note) for _ in range(server.actors)]
        self._queue: deque[_Work] = deque()
        self._sent: set[_Work] = set()
        self._given_up_groups = 0
        self._given_up: Counter[Cause] = Counter()
        """Completions of the groups that were lost too often."""
        self._scored_at: dict[Seat, float] = {}
        """Time of each place's last scored groups."""
        self._last_scored: ScoreJob | None = None
        self._peak = QueuePeak(groups=0, age_s=0.0)
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._servers: list[asyncio.Task[None]] = []
        self._starting: asyncio.Future[None] | None = None
        self._failure: Exception | None = None
        self._changes: set[asyncio.Task[None]] = set()
        """Of the actors' memories, under way."""
        self._changing = asyncio.Lock()

    async def start(self) -> None:
        """Starts the actors side by side, once; without it each starts with its first groups.

        Raises RewardServerLost when one cannot be started, as every later call then does.
        """
        if self._starting is None:
            self._starting = asyncio.ensure_future(self._start_actors())
        await asyncio.shield(self._starting)

    async def score(
        self, task: SqlTask, completions: Sequence[str], *, lengths: Sequence[float] | None = None
    ) -> tuple[RewardResult, ...]:
        """One result a completion, in order. Raises RewardServerLost when no actor can be kept alive."""
        self._serve_all()
        while len(self._queue) >= self._config.server.max_queue and self._failure is None:
            self._room.clear()
            await self._room.wait()
        if self._failure is not None:
            raise self._failure
        loop = asyncio.get_running_loop()
        work = _Work(
            job=ScoreJob(task=task, completions=tuple(completions), lengths=lengths),
            future=loop.create_future(),
            since=loop.time(),
        )
        self._queue.append(work)
        self._note_queue()
        self._arrived.set()
        return await work.future

    async def commit(self) -> None:
        """End of a step: traces that any actor verified enter the memory of every actor, in an order of their own."""
        found = sorted(self._verified, key=lambda t: (t.task_id, t.reasoning, t.db_id, t.correct))
        self._verified.clear()
        if found:
            self._memory.log.append(found)
            await self._everywhere("remember", found, lambda held: self._memory.settle(found, held))

    async def save(self, path: str) -> bool:
        """Writes the memory to a file (which the actors' machine must reach).

        False, and no file, with reward.memory.enabled=false: a checkpoint then has none, and `load` would do nothing.
        """
        async with self._changing:  # what was committed before is in the file
            return bool(await self._persist(self._seats[0], "save", path))

    async def load(self, path: str) -> None:
        """Replaces every actor's memory by a file's, and forgets what waits for `commit`.

        A restarted actor reads the file again, so it must stay in place.
        """
        self._memory.begin(path)
        self._verified.clear()
        await self._everywhere("load", path)

    @property
    def failure(self) -> Exception | None:
        """Why nothing can be scored any more; None while it can."""
        return self._failure

    def stats(self) -> RewardStats:
        """Queue, restarts and counters; costs no call."""
        given_up = self._given_up.total()
        parts = [seat.stats for seat in self._seats if seat.stats is not None]
        return RewardStats(
            queue_groups=len(self._queue),
            queue_age_s=self._queue[0].age_s if self._queue else 0.0,
            groups_in_flight=len(self._sent),
            actors=len(self._seats),
            actor_restarts=sum(seat.restarts for seat in self._seats),
            executor_restarts=sum(part.executor_restarts for part in parts),
            tasks=self._given_up_groups + sum(part.tasks for part in parts),
            completions=given_up + sum(part.completions for part in parts),
            unscorable=given_up + sum(part.unscorable for part in parts),
            unscorable_data=sum(part.unscorable_data for part in parts),
            unscorable_policy=self._given_up["policy"] + sum(part.unscorable_policy for part in parts),
            cache_entries=sum(part.cache_entries for part in parts),
            cache_hits=sum(part.cache_hits for part in parts),
            cache_misses=sum(part.cache_misses for part in parts),
            memory_traces=max((part.memory_traces for part in parts), default=0),
        )

    def take_peak(self) -> QueuePeak:
        """The worst of the queue since the last call, what waits now included."""
        self._note_queue()
        peak, self._peak = self._peak, QueuePeak(groups=len(self._queue), age_s=0.0)
        return peak

    async def close(self) -> None:
        """Ends the actors and their executors; groups still waiting get RewardServerLost."""
        tasks = [*self._servers, *self._changes, *([self._starting] if self._starting else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._fail(RewardServerLost("the reward client was closed"))
        for seat in self._seats:
            await seat.close()

    async def _start_actors(self) -> None:
        starts = (self._persist(seat, "remember", []) for seat in self._seats)
        for outcome in await asyncio.gather(*starts, return_exceptions=True):
            if isinstance(outcome, Exception):
                self._fail(outcome)
                raise outcome

    def _serve_all(self) -> None:
        if not self._servers:
            self._servers = [asyncio.create_task(self._serve(seat)) for seat in self._seats]
            for task in self._servers:
                task.add_done_callback(self._server_ended)

    def _server_ended(self, task: asyncio.Task[None]) -> None:
        """A serving loop ends by cancellation only; anything else is told to everyone who waits."""
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._failure = self._failure or error
        while self._queue:
            self._resolve(self._queue.popleft(), error)
        for work in self._sent:
            self._resolve(work, error)
        self._sent.clear()
        self._room.set()

    async def _serve(self, seat: Seat) -> None:
        """Feeds one actor for ever."""
        while True:
            batch = await self._take()
            await self._score(seat, batch)

    async def _take(self) -> list[_Work]:
        """The next groups: a fair share of the queue, or one group that was lost before."""
        while not self._queue:
            self._arrived.clear()
            await self._arrived.wait()
        self._note_queue()
        share = min(BATCH, -(-len(self._queue) // len(self._seats)))
        batch = [self._queue.popleft()]
        while self._queue and len(batch) < share and not batch[0].lost and not self._queue[0].lost:
            batch.append(self._queue.popleft())
        self._sent.update(batch)
        self._room.set()
        return batch

    def _note_queue(self) -> None:
        """Called where the queue is longest and oldest: as a group has come, and before groups go."""
        age_s = self._queue[0].age_s if self._queue else 0.0
        self._peak = QueuePeak(groups=max(self._peak.groups, len(self._queue)), age_s=max(self._peak.age_s, age_s))

    async def _score(self, seat: Seat, batch: list[_Work]) -> None:
        try:
            reply: Reply = await seat.call("score_batch", [work.job for work in batch])
        except ActorLost as error:
            await self._lost(seat, batch, str(error))
            return
        seat.stats = reply.stats
        self._verified.update(reply.verified)
        self._scored_at[seat] = asyncio.get_running_loop().time()
        self._last_scored = batch[-1].job
        for work, results in zip(batch, reply.results, strict=True):
            self._sent.discard(work)
            self._resolve(work, results)

    async def _lost(self, seat: Seat, batch: list[_Work], reason: str) -> None:
        """Sends lost groups again, before all others; gives one up that was lost too often."""
        now = asyncio.get_running_loop().time()
        for work in reversed(batch):
            work.lost += 1
            if work.lost == 1:
                work.first_lost = now
            if work.lost < LOST_LIMIT:
                self._sent.discard(work)
                self._queue.appendleft(work)
                self._arrived.set()
                continue
            cause = await self._cause(seat, work)
            self._sent.discard(work)
            result = RewardResult(
                status="unscorable", total=None, error=f"lost {work.lost} times: {reason}", cause=cause
            )
            self._given_up_groups += 1
            self._given_up[cause] += len(work.job.completions)
            self._resolve(work, (result,) * len(work.job.completions))

    async def _cause(self, seat: Seat, work: _Work) -> Cause:
        """Whose doing it is that a group was lost each time: see above."""
        if self._scored_at.get(seat, 0.0) > work.first_lost:
            return "policy"
        other = self._last_scored or ScoreJob(task=work.job.task, completions=work.job.task.gold_sqls[:1])
        try:
            await seat.call("score_batch", [other])
        except ActorLost:
            return "infrastructure"
        return "policy"

    async def _everywhere(
        self, method: str, argument: object, done: Callable[[Any], None] = lambda answer: None
    ) -> None:
        """Changes the memory of every actor, in the same order at each, also where the caller is cancelled half
        way. `done` is told an answer, which is the same from each, when all have answered."""

        async def change() -> None:
            async with self._changing:
                for seat in self._seats:
                    answer = await self._persist(seat, method, argument)
                done(answer)

        task = asyncio.create_task(change())
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        await asyncio.shield(task)

    async def _persist(self, seat: Seat, method: str, *arguments: object) -> Any:
        """A call that must get through: sent again to the actor's successors."""
        for attempt in range(1, LOST_LIMIT + 1):
            try:
                return await seat.call(method, *arguments)
            except ActorLost as error:
                if attempt == LOST_LIMIT:
                    raise RewardServerLost(str(error)) from error
        raise AssertionError("unreachable")

    @staticmethod
    def _resolve(work: _Work, outcome: tuple[RewardResult, ...] | Exception) -> None:
        if work.future.done():  # its caller was cancelled
            return
        if isinstance(outcome, Exception):
            work.future.set_exception(outcome)
        else:
            work.future.set_result(outcome)
