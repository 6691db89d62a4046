"""How a pool talks to one worker, whatever carries the calls. Implemented over Ray in worker.py, by fakes in tests."""

from collections.abc import Callable, Sequence
from typing import Protocol

from rollout.requests import GenerationRequest, SampledGroup
from rollout.weights.handle import SyncReport, WeightHandle


class WorkerPort(Protocol):
    """One life of one worker; a restarted worker is a new port. Every method but `kill` may raise a RolloutError."""

    async def start(self, timeout_s: float) -> int:
        """Start the process and its engine; returns the policy version of its weights."""

    async def submit(self, requests: Sequence[GenerationRequest]) -> None:
        """Queue groups; returns when the engine has them."""

    async def collect(self, wait_s: float) -> tuple[SampledGroup, ...]:
        """Groups finished since the last call; waits at most `wait_s` for the first."""

    async def abort(self, group_ids: Sequence[str]) -> None:
        """Drop groups that nobody waits for; unknown ids are ignored."""

    async def update_weights(self, handle: WeightHandle, rank_offset: int) -> SyncReport:
        """Replace the weights between two engine steps."""

    def kill(self) -> None:
        """End the process at once; calls under way fail. Safe at any time, and twice."""


PortFactory = Callable[[], WorkerPort]
"""Makes a new life of one worker."""
