"""report.html: one self-contained page for a run, finished or not.

Guarantees: no network access and no script but the page's own (a content-security policy forbids both); everything that
a model or a data set wrote is escaped. Works for a run without samples or without a single step.
"""

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from records.files import Json, read_rows, write_atomically
from records.report.chart import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH
from records.report.curves import Section, sections
from records.report.headline import StageShare, Tile, costs, results, stage_shares
from records.report.samples import FIRST_GROUPS, MAX_GROUPS, SampleBrowser, browser, first_and_last, visible
from records.run_folder import CONFIG, METRICS, REPORT, SAMPLES, RunFolderError, is_open, read_config, read_summary
from records.states import read_states
from records.summary import VALUE_AWARE, summarise

_HERE = Path(__file__).parent


@dataclass(frozen=True, kw_only=True, slots=True)
class RunView:
    """A run as the templates show it."""

    name: str
    status: str
    """finished, stopped, failed, running, or unfinished: no summary and no process that writes."""
    error: str
    step: int
    steps: int
    """Steps asked for; the steps made when the configuration does not say."""
    facts: tuple[tuple[str, str], ...]
    states: tuple[tuple[str, str], ...]
    """Part of the run and its state; empty when no job runs."""
    results: tuple[Tile, ...]
    costs: tuple[Tile, ...]
    stages: tuple[StageShare, ...]
    sections: tuple[Section, ...]
    samples: SampleBrowser
    config: str
    versions: tuple[tuple[str, str], ...]


def _config(path: Path) -> tuple[dict[str, Any], str]:
    file = path / CONFIG
    if not file.is_file():
        return {}, ""
    return read_config(path), file.read_text(encoding="utf-8")


def _facts(config: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """What was trained on what, from the resolved configuration; settings it lacks are left out."""
    model, data = config.get("model", {}), config.get("data", {})
    facts = (
        ("Policy", model.get("path") or model.get("type")),
        ("Data", data.get("type")),
        ("Loss", config.get("algo", {}).get("loss", {}).get("type")),
        ("Group size", config.get("rollout", {}).get("group_size")),
        ("Prompts a step", config.get("pipeline", {}).get("prompts_per_step")),
        ("Seed", config.get("seed")),
    )
    return tuple((label, str(value)) for label, value in facts if value is not None)


def require_run(path: Path) -> None:
    """Raises RunFolderError when the folder holds no run."""
    if not (path / METRICS).is_file():
        raise RunFolderError(f"{path} is no run folder: it holds no {METRICS}")


def view(path: Path) -> RunView:
    """Reads a run folder. Raises RunFolderError when it is none, RecordsDamaged when its files are broken."""
    require_run(path)
    groups, total = first_and_last(read_rows(path / SAMPLES), first=FIRST_GROUPS, last=MAX_GROUPS - FIRST_GROUPS)
    return view_of(path, list(read_rows(path / METRICS)), browser(groups, total))


def view_of(path: Path, rows: list[Json], samples: SampleBrowser, *, live: bool = False) -> RunView:
    """The view of a run whose rows are at hand; reads its configuration and summary. `live`: while a process that goes
    on with the run prepares itself, the summary of the one before does not count."""
    config, config_text = _config(path)
    summary = None if live and is_open(path) else read_summary(path)
    status = summary["status"] if summary else "running" if is_open(path) else "unfinished"
    reached, evaluated = _with_latest(summary or _so_far(rows, config), rows, config)
    asked = config.get("pipeline", {}).get("steps", reached["steps"])
    return RunView(
        name=path.resolve().name,
        status=status,
        error=visible(reached["error"] or "", 4_000),
        step=reached["steps"],
        steps=asked,
        facts=_facts(config),
        states=tuple(read_states(path).items()) if status == "running" else (),
        results=results(reached, evaluated),
        costs=costs(reached),
        stages=tuple(stage_shares(reached["seconds_by_stage"])),
        sections=sections(rows),
        samples=samples,
        config=config_text,
        versions=tuple(reached["versions"].items()),
    )


_EVALUATED = {
    "greedy_ex_after": "eval/greedy_ex",
    "mean_at_n_after": "eval/mean_at_n",
    "vav_ex_after": "eval/vote_ex",
    "recall_at_n_after": "eval/recall_at_n",
}


def _evaluation(config: dict[str, Any]) -> dict[str, Any]:
    return {"n": 0, "selection": VALUE_AWARE} | config.get("evaluation", {})


def _with_latest(reached: dict[str, Any], rows: list[Json], config: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """The summary with the latest evaluation, which is the charts' last point, as the one after; and its step."""
    evaluated = [row for row in rows if row["step"] and any(row.get(key) is not None for key in _EVALUATED.values())]
    if not evaluated:
        return reached, 0
    step = evaluated[-1]["step"]
    latest: dict[str, float | None] = dict.fromkeys(_EVALUATED)
    for row in evaluated:
        if row["step"] == step:
            latest |= {name: row[key] for name, key in _EVALUATED.items() if row.get(key) is not None}
    if _evaluation(config)["selection"] != VALUE_AWARE:
        latest["vav_ex_after"] = None
    return {**reached, **latest}, step


def _so_far(rows: list[Json], config: dict[str, Any]) -> dict[str, Any]:
    """The summary that the rows would make if the run ended now."""
    evaluation = _evaluation(config)
    elapsed = [row["perf/elapsed_s"] for row in rows if row.get("perf/elapsed_s") is not None]
    return summarise(
        rows,
        status="stopped",
        wall_s=elapsed[-1] if elapsed else 0.0,
        n=evaluation["n"],
        selection=evaluation["selection"],
        seed=config.get("seed", 0),
        versions={},
    ).as_json()


def environment(*packages: str) -> Environment:
    """This package's templates and those of other packages, escaping everything that is not Markup."""
    made = Environment(
        loader=ChoiceLoader([PackageLoader(package, ".") for package in ("records.report", *packages)]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals |= {"chart_width": WIDTH, "chart_height": HEIGHT}
    made.globals |= {"chart_left": LEFT, "chart_right": RIGHT, "chart_top": TOP, "chart_bottom": BOTTOM}
    return made


def asset(name: str) -> Markup:
    """A style sheet or script of this package, to be inlined."""
    return Markup((_HERE / name).read_text(encoding="utf-8"))


def script_hash(script: str) -> str:
    """The content-security-policy source that admits exactly this inline script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def render_report(run: RunView) -> str:
    script = asset("report.js")
    return (
        environment()
        .get_template("report.html.j2")
        .render(run=run, style=asset("report.css"), script=script, script_hash=script_hash(script))
    )


def write_report(run_dir: Path) -> Path:
    """Writes report.html into a run folder and returns its path. Raises RunFolderError, RecordsDamaged."""
    path = run_dir / REPORT
    write_atomically(path, render_report(view(run_dir)))
    return path
