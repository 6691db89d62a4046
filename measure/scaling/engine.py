"""Rollout workers with continuous batching, in simulated time: who generates what is real, the tokens are not.

All running sequences of a worker advance together, one token every `fixed + each x running` seconds; a prompt that
enters costs its own time first. Sequences beyond the worker's slots wait their turn. A weight update stops all workers,
and what was in flight goes on under the new weights.
"""

import asyncio
import heapq
import itertools
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from conf.schema.rollout import SamplingConfig
from measure.scaling.cores import Cores, Part
from measure.scaling.costs import EngineCosts
from rollout.carriers import Completion, Group, Prompt
from trainer.pipeline.clock import now

EXACT = 1e-6
"""Tokens; sequences that end within this end together."""


@dataclass(kw_only=True, slots=True, eq=False)
class _Request:
    """A group on its worker."""

    prompt_tokens: int
    waiting: deque[int]
    """Lengths of the sequences that do not run yet."""
    left: int
    version: int
    future: "asyncio.Future[int]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    read: bool = False
    """The prompt has been read."""


class Worker(Part):
    def __init__(self, machine: Cores, costs: EngineCosts) -> None:
        super().__init__(machine)
        self._costs = costs
        self._running: list[tuple[float, int, _Request]] = []
        self._queue: deque[_Request] = deque()
        self._order = itertools.count()
        self._tokens = 0.0
        self._reading = 0.0
        self._paused = False
        self._idle_since: float | None = 0.0
        self.idle_s = 0.0
        self.owed = 0
        """Completions accepted and not finished."""

    def submit(self, request: _Request) -> None:
        self.advance()
        self.owed += request.left
        self._queue.append(request)
        self._admit()

    def pause(self, paused: bool) -> None:
        self.advance()
        self._paused = paused
        self._admit()

    def progress(self, seconds: float) -> None:
        if self._paused:
            return
        read = min(self._reading, seconds)
        self._reading -= read
        if self._running:
            self._tokens += (seconds - read) / self._token_s()

    def remaining(self) -> float | None:
        if self._paused or not self._running:
            return None
        return self._reading + max(0.0, self._running[0][0] - self._tokens) * self._token_s()

    def happen(self) -> None:
        while self._running and self._running[0][0] <= self._tokens + EXACT:
            request = heapq.heappop(self._running)[2]
            request.left -= 1
            self.owed -= 1
            if request.left == 0 and not request.future.done():
                request.future.set_result(request.version)
        self._admit()

    def _token_s(self) -> float:
        return self._costs.fixed_s + self._costs.each_s * len(self._running)

    def _admit(self) -> None:
        while self._queue and not self._paused and len(self._running) < self._costs.slots:
            request = self._queue[0]
            if not request.read:
                request.read = True
                self._reading += request.prompt_tokens * self._costs.prompt_token_s
            length = request.waiting.popleft()
            heapq.heappush(self._running, (self._tokens + length, next(self._order), request))
            if not request.waiting:
                self._queue.popleft()
        self._count_idle(busy=bool(self._running))
        self.machine.ask(self, self._costs.cores if self._running and not self._paused else 0.0)
        self.plan()

    def _count_idle(self, *, busy: bool) -> None:
        if busy and self._idle_since is not None:
            self.idle_s += now() - self._idle_since
            self._idle_since = None
        elif not busy and self._idle_since is None:
            self._idle_since = now()


class SimulatedPool:
    """The rollout pool's part of the pipeline: groups go to the worker that owes the fewest completions."""

    def __init__(self, workers: Sequence[Worker], lengths: Sequence[int], *, seed: int) -> None:
        self._workers = workers
        self._lengths = lengths
        self._seed = seed
        self._ready = asyncio.Event()
        self._ready.set()
        self._made: dict[tuple[int, int], Completion] = {}
        self.version = 0

    @property
    def idle_s(self) -> float:
        """Summed over workers."""
        return sum(worker.idle_s for worker in self._workers)

    async def generate(self, prompt: Prompt, *, group_id: str, n: int, sampling: SamplingConfig) -> Group:
        drawn = random.Random(f"{self._seed}/{group_id}").choices(self._lengths, k=n)
        await self._ready.wait()
        request = _Request(
            prompt_tokens=len(prompt.token_ids), waiting=deque(drawn), left=len(drawn), version=self.version
        )
        min(self._workers, key=lambda worker: worker.owed).submit(request)
        version = await request.future
        return Group(id=group_id, prompt=prompt, completions=tuple(self._completion(n, version) for n in drawn))

    async def update(self, version: int, seconds: float) -> None:
        """Stops generation for `seconds`; from then on groups begin under `version`."""
        self._ready.clear()
        for worker in self._workers:
            worker.pause(True)
        await asyncio.sleep(seconds)
        self.version = version
        for worker in self._workers:
            worker.pause(False)
        self._ready.set()

    def _completion(self, length: int, version: int) -> Completion:
        """One object for each length and version: a step has hundreds of thousands of completions."""
        key = (length, version)
        if key not in self._made:
            self._made[key] = Completion(
                text="",
                token_ids=(0,) * length,
                logprobs=(0.0,) * length,
                version_spans=((0, version),),
                finish_reason="stop",
            )
        return self._made[key]
