"""What the driver did and waited for, as a Chrome trace: one track of stages, and one lane for each group in flight.

Pure. The format is the Trace Event Format's complete events (ph "X"); spans of one track never overlap, as viewers ask.
"""

from dataclasses import dataclass
from typing import Any

DRIVER = 1
"""Track of the stages; group lanes follow."""
PROCESS = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class _Span:
    name: str
    start: float
    end: float


class Timeline:
    """Collects spans; all moments are seconds of one clock, the first is the trace's origin."""

    def __init__(self, origin: float) -> None:
        self._origin = origin
        self._stages: list[_Span] = []
        self._groups: list[tuple[_Span, _Span]] = []

    def stage(self, name: str, start: float, end: float) -> None:
        """The driver was in, or waited for, this stage."""
        self._stages.append(_Span(name=name, start=start, end=end))

    def group(self, position: int, started: float, generated: float, finished: float) -> None:
        """One stream position's way through generation and scoring."""
        generate = _Span(name=f"generate {position}", start=started, end=generated)
        self._groups.append((generate, _Span(name=f"score {position}", start=generated, end=finished)))

    def as_chrome(self) -> dict[str, Any]:
        """The JSON object of the trace; times in microseconds since the origin."""
        events = [_track(DRIVER, "driver")]
        events += [self._event(span, DRIVER, "stage") for span in self._stages]
        free: list[float] = []
        for generate, score in sorted(self._groups, key=lambda pair: pair[0].start):
            lane = next((n for n, until in enumerate(free) if until <= generate.start), len(free))
            if lane == len(free):
                free.append(0.0)
                events.append(_track(DRIVER + 1 + lane, f"group lane {lane}"))
            free[lane] = score.end
            events += [self._event(span, DRIVER + 1 + lane, "group") for span in (generate, score)]
        return {"traceEvents": events, "displayTimeUnit": "ms"}

    def _event(self, span: _Span, track: int, category: str) -> dict[str, Any]:
        return {
            "name": span.name,
            "cat": category,
            "ph": "X",
            "ts": (span.start - self._origin) * 1e6,
            "dur": (span.end - span.start) * 1e6,
            "pid": PROCESS,
            "tid": track,
        }


def _track(number: int, name: str) -> dict[str, Any]:
    return {"name": "thread_name", "ph": "M", "pid": PROCESS, "tid": number, "args": {"name": name}}
