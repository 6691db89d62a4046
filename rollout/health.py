"""The state of one rollout worker, as its pool sees it. Pure: times are passed in.

    STARTING --ready--> STALE --updated(wanted)--> READY --published(newer)--> STALE
    READY --silent--> SUSPECT --delivered--> READY
    any --lost--> DEAD --restarting--> STARTING

Only a READY worker gets new groups, and READY means that its weights are the newest published: no order of events
lets a new group begin under old weights.
"""

from enum import StrEnum


class State(StrEnum):
    STARTING = "starting"
    READY = "ready"
    STALE = "stale"
    SUSPECT = "suspect"
    DEAD = "dead"


class Health:
    """Follows one worker through its lives."""

    def __init__(self, *, silence_limit_s: float) -> None:
        """`silence_limit_s`: seconds without a finished group, while groups wait, that make a worker count as hung."""
        self._limit = silence_limit_s
        self._waiting_since: float | None = None
        self.state = State.STARTING
        self.version = -1
        self.restarts = 0

    def ready(self, *, version: int, wanted: int) -> None:
        """The process answers; its weights are of `version`, the newest published are `wanted`."""
        if self.state is State.STARTING:
            self.version = version
            self.state = State.READY if version == wanted else State.STALE

    def published(self, wanted: int) -> None:
        """Newer weights exist."""
        if self.state in (State.READY, State.SUSPECT) and self.version != wanted:
            self.state = State.STALE

    def updated(self, *, version: int, wanted: int) -> None:
        """The worker has loaded `version`."""
        if self.state in (State.STALE, State.READY, State.SUSPECT):
            self.version = version
            self.state = State.READY if version == wanted else State.STALE

    def assigned(self, now: float) -> None:
        """Groups were handed over; silence counts from the first of them."""
        if self._waiting_since is None:
            self._waiting_since = now

    def delivered(self, now: float, *, outstanding: int) -> None:
        """Groups came back and `outstanding` others are still waited for."""
        self._waiting_since = now if outstanding else None
        if self.state is State.SUSPECT:
            self.state = State.READY

    def silence_left(self, now: float) -> float | None:
        """Seconds until the worker counts as hung; None while nothing is waited for."""
        if self._waiting_since is None:
            return None
        left = self._waiting_since + self._limit - now
        if left < self._limit / 2 and self.state is State.READY:
            self.state = State.SUSPECT
        return left

    def lost(self) -> None:
        """The process died, hung or refused its weights."""
        self.state = State.DEAD
        self.version = -1
        self._waiting_since = None

    def restarting(self) -> None:
        """A new process takes the worker's place."""
        if self.state is State.DEAD:
            self.restarts += 1
            self.state = State.STARTING

    @property
    def alive(self) -> bool:
        """The process answers."""
        return self.state in (State.READY, State.STALE, State.SUSPECT)
