"""A run on the terminal: progress, the numbers that matter and their recent course, stage times, newest answers."""

import time
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from conf.terminal import visible
from operate.watch.live import LiveRun
from records.files import Json
from records.report.curves import merged
from records.report.page import RunView
from records.sinks.console import HEADLINE, Pace, PlainConsole, duration

POLL_S = 1.0
_BARS = "▁▂▃▄▅▆▇█"
_COLOURS = {"finished": "green", "running": "blue", "failed": "red"}


def sparkline(values: Sequence[float], width: int = 32) -> str:
    """The latest `width` values as bars between their own least and greatest."""
    shown = values[-width:]
    if not shown:
        return ""
    low, high = min(shown), max(shown)
    if low == high:
        return _BARS[3] * len(shown)
    return "".join(_BARS[int((value - low) / (high - low) * (len(_BARS) - 1) + 0.5)] for value in shown)


def _numbers(rows: Sequence[Json]) -> Table:
    table = Table.grid(padding=(0, 2))
    for label, key, form in HEADLINE:
        values = [row[key] for row in rows if row.get(key) is not None]
        if values:
            table.add_row(Text(label, style="dim"), Text(form(values[-1]), style="bold"), Text(sparkline(values)))
    return table


def _left(run: RunView, rows: Sequence[Json]) -> str:
    pace = Pace(run.steps)
    left = None
    for row in rows[-10:]:
        left = pace.remaining(row)
    return f"   {duration(left)} left" if left and run.status == "running" else ""


def dashboard(run: RunView, rows: Sequence[Json]) -> RenderableType:
    """What `run` looks like now. `rows`: its metrics rows."""
    steps = merged(rows)
    title = Text.assemble((visible(run.name), "bold"), "  ", (run.status, _COLOURS.get(run.status, "yellow")))
    progress = Text(f"step {run.step} of {run.steps}{_left(run, steps)}")
    bar = Padding(ProgressBar(total=max(run.steps, 1), completed=run.step), (0, 0, 1, 0))
    parts: list[RenderableType] = [progress, bar, _numbers(steps)]
    if run.error:
        parts.append(Text(visible(run.error, lines=True), style="red"))
    if run.stages:
        parts.append(Text("   ".join(f"{s.stage} {s.seconds} ({s.percent:.0f} %)" for s in run.stages), style="dim"))
    if run.states:
        parts.append(Text("   ".join(f"{visible(f'{part}: {state}')}" for part, state in run.states), style="dim"))
    for group in run.samples.groups[:2]:
        outcome = f"{group.right} of {group.size} right, step {group.step}"
        parts.append(Text.assemble("\n", (visible(group.question, lines=True), "bold"), f"  {outcome}"))
        for one in group.completions[:2]:
            answer = one.sql.striptags() if one.sql is not None else one.text
            line = Text(f"{one.outcome:>10}  {visible(' '.join(answer.split()))}", no_wrap=True, overflow="ellipsis")
            parts.append(line)
    return Panel(Group(*parts), title=title, title_align="left")


def follow(live: LiveRun, console: Console) -> None:
    """Shows the run until it ends: a live display on a terminal, one line a step elsewhere. Raises RecordsDamaged."""
    if console.is_terminal:
        _follow_on_terminal(live, console)
    else:
        _follow_in_lines(live, console)


def _follow_on_terminal(live: LiveRun, console: Console) -> None:
    run = live.refresh()
    with Live(dashboard(run, live.rows), console=console, auto_refresh=False) as display:
        while run.status == "running":
            time.sleep(POLL_S)
            run = live.refresh()
            display.update(dashboard(run, live.rows), refresh=True)


def _follow_in_lines(live: LiveRun, console: Console) -> None:
    run = live.refresh()
    lines = PlainConsole(console, steps=run.steps)
    shown = 0
    while True:
        for row in live.rows[shown:]:
            lines.write(row)
        shown = len(live.rows)
        if run.status != "running":
            break
        time.sleep(POLL_S)
        run = live.refresh()
        shown = min(shown, len(live.rows))
    lines.note(f"{run.name}: {run.status}{f' ({run.error})' if run.error else ''}")
