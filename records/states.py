"""What each part of a run is doing now, for those who watch it: one small file in the run folder while a job runs.

The file is renewed when a state has changed, and gone when nothing runs. A disk that takes no more files is no reason
to end a run: the file then stays behind.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from records.files import RecordsDamaged

FILE = "states.json"
EVERY_S = 2.0

States = Mapping[str, str]
"""A part of the run (a rollout worker, the reward server, the learner) and its state in words."""


@asynccontextmanager
async def shown(folder: Path, states: Callable[[], States], *, every_s: float = EVERY_S) -> AsyncIterator[None]:
    """Keeps the file of a run folder while the block runs."""
    task = asyncio.create_task(_keep(folder / FILE, states, every_s), name="worker states")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        (folder / FILE).unlink(missing_ok=True)


def read_states(folder: Path) -> dict[str, str]:
    """As last written; nothing where no job runs. Raises RecordsDamaged."""
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise RecordsDamaged(f"{folder / FILE} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise RecordsDamaged(f"{folder / FILE} is no JSON object")
    return {str(part): str(state) for part, state in found.items()}


async def _keep(file: Path, states: Callable[[], States], every_s: float) -> None:
    written = None
    while True:
        text = json.dumps(states())
        if text != written:
            with contextlib.suppress(OSError):
                _replace(file, text)
                written = text
        await asyncio.sleep(every_s)


def _replace(file: Path, text: str) -> None:
    """By rename, without waiting for the disk: after a power cut nobody watches."""
    part = file.with_name(f".{file.name}")
    part.write_text(text, encoding="utf-8")
    part.replace(file)
