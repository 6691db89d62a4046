"""What is written down for a run whose driver was ended from outside, before it could do so itself."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from records.files import Json, RecordsDamaged, read_rows, write_atomically
from records.index.index import RunIndex, now, run_id
from records.index.register import SCORES, index_path
from records.run_folder import CHECKPOINTS, CONFIG, METRICS, SUMMARY, is_open, read_config, read_summary
from records.states import FILE as STATES
from records.summary import RunSummary, summarise


def record_stopped(folder: Path, cause: str) -> bool:
    """Gives a run that nobody writes into and that has no summary one with `cause`, and the run index its outcome.

    False: the folder holds no run, a process writes into it, or it has ended by itself. Raises RecordsDamaged,
    IndexUnusable.
    """
    if not (folder / CHECKPOINTS).is_dir() or not (folder / CONFIG).is_file():
        return False
    if is_open(folder) or read_summary(folder) is not None:
        return False
    config = read_config(folder)
    rows = list(read_rows(folder / METRICS)) if (folder / METRICS).is_file() else []
    try:
        asked = {"n": config["evaluation"]["n"], "selection": config["evaluation"]["selection"], "seed": config["seed"]}
        where = index_path(config["run"]["dir"], config["run"].get("index"))
    except (KeyError, TypeError) as error:
        raise RecordsDamaged(f"{folder / CONFIG} is no whole configuration of a run: it lacks {error}") from error
    summary = _summary(rows, asked, cause)
    write_atomically(folder / SUMMARY, json.dumps(summary.as_json(), indent=2, allow_nan=False) + "\n")
    (folder / STATES).unlink(missing_ok=True)
    index = RunIndex(where)
    identity = run_id(folder)
    for row in index.rows():
        if row.id == identity:
            fields = summary.as_json()
            scores = {name: fields[name] for name in SCORES}
            ended: dict[str, Any] = {"steps": summary.steps, "wall_s": summary.wall_s, "ended": now()}
            index.put(dataclasses.replace(row, outcome="stopped", error=cause, scores=scores, **ended))
    return True


def _summary(rows: list[Json], asked: Json, cause: str) -> RunSummary:
    elapsed = [row["perf/elapsed_s"] for row in rows if row.get("perf/elapsed_s") is not None]
    return summarise(
        rows,
        status="stopped",
        error=cause,
        wall_s=elapsed[-1] if elapsed else 0.0,
        versions={},
        **asked,
    )
