"""Weights & Biases as a metrics sink. wandb is imported only when it is switched on."""

import secrets
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from conf.errors import QuorumError
from conf.schema.stages import WandbConfig
from records.files import write_atomically
from records.metrics import Row

if TYPE_CHECKING:
    import wandb


class WandbUnavailable(QuorumError):
    """wandb could not start; the message names the setting to change."""


class WandbSink:
    """Logs each row under its step. A resumed run folder continues the same wandb run.

    A context manager: leaving it with an error marks the wandb run as failed.
    """

    def __init__(self, run: "wandb.Run") -> None:
        self._run = run

    def write(self, row: Row) -> None:
        values = {key: value for key, value in row.items() if key != "step" and value is not None}
        self._run.log(values, step=row["step"])

    def close(self) -> None:
        self._run.finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run.finish(exit_code=0 if kind is None else 1)


def open_wandb(config: WandbConfig, *, folder: Path, name: str, run_config: Mapping[str, Any]) -> WandbSink | None:
    """The sink that the configuration asks for; None when it is disabled. Raises WandbUnavailable.

    Files go to `folder`/wandb. The API key comes from the environment or wandb's own login, never from the settings.
    """
    if config.mode == "disabled":
        return None
    import wandb
    from wandb.errors import Error

    try:
        run = wandb.init(
            mode=config.mode,
            project=config.project,
            entity=config.entity,
            name=name,
            id=_run_id(folder),
            resume="allow",
            dir=folder,
            config=dict(run_config),
            settings=wandb.Settings(silent=True, console="off"),
        )
    except Error as error:
        raise WandbUnavailable(
            f"logging.wandb.mode={config.mode} could not start ({error}): log in with `wandb login`, "
            "or set logging.wandb.mode=offline or disabled"
        ) from error
    return WandbSink(run)


def _run_id(folder: Path) -> str:
    """The folder's wandb run id, made on first use and kept beside the rows."""
    file = folder / ".wandb_id"
    if not file.is_file():
        write_atomically(file, secrets.token_hex(8))
    return file.read_text(encoding="utf-8").strip()
