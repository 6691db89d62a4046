"""What the person who started the run sees: a live display on a terminal, plain lines elsewhere.

Both are metrics sinks. They show a handful of numbers; everything else is in metrics.jsonl and report.html.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Literal, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from conf.terminal import visible
from records.metrics import Row
from records.metrics_keys import STAGES

Mode = Literal["auto", "rich", "plain", "off"]
Number = int | float | None
STARTING, TRAINING = "starting", "training"
"""What the live display says a run does before its first stage, and outside of stages after that."""

HEADLINE: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("reward", "reward/total/mean", lambda v: f"{v:.3f}"),
    ("accuracy", "reward/accuracy", lambda v: f"{100 * v:.1f} %"),
    ("greedy EX", "eval/greedy_ex", lambda v: f"{100 * v:.1f} %"),
    ("entropy", "policy/entropy", lambda v: f"{v:.3f}"),
    ("mismatch", "mismatch/logp_abs_mean", lambda v: f"{v:.2g}"),
    ("completions/s", "perf/completions_per_s", lambda v: f"{v:.1f}"),
)
"""Label, key and format of the numbers shown for each step."""


def duration(seconds: float) -> str:
    """Seconds as "8.4 s", "3:07" or "2:05:09"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def headline(row: Mapping[str, Number]) -> list[tuple[str, str]]:
    """Label and formatted value of the headline numbers that the row holds; null reads "not finite"."""
    return [
        (label, "not finite" if (value := row[key]) is None else form(value))
        for label, key, form in HEADLINE
        if key in row
    ]


def stage_shares(row: Mapping[str, Number]) -> list[tuple[str, float]]:
    """Stage and seconds of the stages that took time in the row's step."""
    seconds = ((stage, row.get(f"perf/{stage}_s")) for stage in STAGES)
    return [(stage, value) for stage, value in seconds if value]


class Pace:
    """Expected remaining time: a moving average of the latest steps' wall time."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._recent: list[float] = []

    def remaining(self, row: Mapping[str, Number]) -> float | None:
        """Seconds to the last step, once one step's time is known."""
        taken = row.get("perf/step_s")
        if taken is not None and row["step"]:
            self._recent = [*self._recent[-9:], taken]
        if not self._recent:
            return None
        return (self._steps - int(row["step"] or 0)) * sum(self._recent) / len(self._recent)


class RunConsole(Protocol):
    """A metrics sink that also says what the run is doing."""

    def write(self, row: Row) -> None: ...

    def stage(self, name: str) -> AbstractContextManager[None]:
        """Shows `name` as the current stage while the block runs."""
        ...

    def note(self, text: str) -> None:
        """One line that stays."""
        ...

    def close(self) -> None: ...


class SilentConsole:
    """Shows nothing."""

    def write(self, row: Row) -> None:
        """Shows nothing."""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        yield

    def note(self, text: str) -> None:
        """Shows nothing."""

    def close(self) -> None:
        """Has nothing to close."""


class PlainConsole:
    """One line a step, for logs and pipes."""

    def __init__(self, console: Console, *, steps: int) -> None:
        self._console = console
        self._steps = steps
        self._pace = Pace(steps)

    def write(self, row: Row) -> None:
        left = self._pace.remaining(row)
        parts = [f"step {row['step']}/{self._steps}", *(f"{label} {value}" for label, value in headline(row))]
        parts += [f"{stage} {duration(seconds)}" for stage, seconds in stage_shares(row)]
        if left:
            parts.append(f"left {duration(left)}")
        self.note("  ".join(parts))

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self.note(f"{name} ...")
        begun = time.monotonic()
        yield
        self.note(f"{name} done in {duration(time.monotonic() - begun)}")

    def note(self, text: str) -> None:
        self._console.print(Text(visible(text, lines=True)), soft_wrap=True)

    def close(self) -> None:
        """Has nothing to close."""


class RichConsole:
    """A live display: progress bar, current stage, headline numbers, time by stage."""

    def __init__(self, console: Console, *, steps: int) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}", markup=False),
            console=console,
            expand=True,
        )
        self._task: TaskID = self._progress.add_task(STARTING, total=steps, left="")
        self._pace = Pace(steps)
        self._row: Row = {}
        self._seen: dict[str, str] = {}
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=4)
        self._live.start()

    def _render(self) -> RenderableType:
        table = Table.grid(padding=(0, 3))
        if self._seen:
            table.add_row(*(Text(label, style="dim") for label in self._seen))
            table.add_row(*(Text(value, style="bold") for value in self._seen.values()))
        stages = "   ".join(f"{stage} {duration(seconds)}" for stage, seconds in stage_shares(self._row))
        return Group(self._progress, table, Text(stages, style="dim"))

    def write(self, row: Row) -> None:
        self._row = row
        # Greedy accuracy is measured now and then: the latest value stays in sight.
        self._seen |= dict(headline(row))
        left = self._pace.remaining(row)
        self._progress.update(self._task, completed=row["step"] or 0, left=f"left {duration(left)}" if left else "")

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """The stages before the first step follow each other at once: what goes on outside of a stage is training."""
        before = self._progress.tasks[self._task].description
        self._progress.update(self._task, description=name)
        try:
            yield
        finally:
            self._progress.update(self._task, description=TRAINING if before == STARTING else before)

    def note(self, text: str) -> None:
        self._live.console.print(Text(visible(text, lines=True)))

    def close(self) -> None:
        self._live.stop()


def open_console(mode: Mode, *, steps: int, console: Console | None = None) -> RunConsole:
    """The console that the configuration asks for; auto is rich on a terminal and plain lines elsewhere."""
    target = console or Console()
    if mode == "auto":
        mode = "rich" if target.is_terminal else "plain"
    builders: Mapping[Mode, Callable[[], RunConsole]] = {
        "rich": lambda: RichConsole(target, steps=steps),
        "plain": lambda: PlainConsole(target, steps=steps),
        "off": SilentConsole,
    }
    return builders[mode]()
