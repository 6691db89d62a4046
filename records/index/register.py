"""The trainer's side of the run index: a row at the start, its data when loaded, its outcome at the end."""

import dataclasses
import os
from pathlib import Path

from conf.load import FOLDER
from conf.schema.root import TrainConfig
from records.index.identity import JOB_ID, code_version, data_digests, parent_checkpoint
from records.index.index import RunIndex, RunRow, now, run_id
from records.summary import RunSummary
from rollout.tasks import TaskSet

SCORES = (
    *("greedy_ex_before", "greedy_ex_after", "mean_at_n_before", "mean_at_n_after", "vav_ex_after"),
    *("recall_at_n_after", "n", "reward_first", "reward_last"),
)
"""Fields of the summary that the index keeps."""


def index_path(run_dir: str, index: str | None) -> Path:
    """Where the index of a run's configuration lies (run.dir, run.index)."""
    return Path(index) if index is not None else Path(run_dir) / "index.db"


class Registration:
    """One run's row. Raises IndexUnusable wherever the index cannot be written."""

    def __init__(self, config: TrainConfig, folder: Path) -> None:
        self._index = RunIndex(index_path(config.run.dir, config.run.index))
        identity = run_id(folder)
        earlier = [row for row in self._index.rows() if row.id == identity]
        self._row = RunRow(
            id=identity,
            name=config.run.name,
            folder=str(folder.resolve()),
            config=config.model_dump(mode="json"),
            code=code_version(FOLDER.parent),
            data={},
            parent=None if config.model.type == "tiny" else parent_checkpoint(Path(config.model.path)),
            job=os.environ.get(JOB_ID),
            outcome="running",
            error=None,
            steps=earlier[0].steps if earlier else 0,
            scores={},
            started=earlier[0].started if earlier else now(),
            ended=None,
            wall_s=None,
        )
        self._index.put(self._row)

    def add_data(self, tasks: TaskSet) -> None:
        """Says what the run trains on."""
        self._put(dataclasses.replace(self._row, data=data_digests(tasks)))

    def end(self, summary: RunSummary) -> None:
        """Says what became of the run."""
        fields = summary.as_json()
        self._put(
            dataclasses.replace(
                self._row,
                outcome=summary.status,
                error=summary.error,
                steps=summary.steps,
                scores={name: fields[name] for name in SCORES},
                wall_s=summary.wall_s,
                ended=now(),
            )
        )

    def _put(self, row: RunRow) -> None:
        self._row = row
        self._index.put(row)
