"""What a command does with an output that is there already: it refuses, before anything slow starts."""

from pathlib import Path

from conf.errors import QuorumError


class OutputTaken(QuorumError):
    """An output would overwrite results, or its folder cannot be made."""


def new_output(output: str, *names: str) -> Path:
    """The folder `output`, made when absent, to which none of the files `names` belongs yet. Raises OutputTaken."""
    folder = Path(output)
    refuse_existing("output", *(folder / name for name in names))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputTaken(f"output={output} cannot be used as a folder: {error.strerror}") from error
    return folder


def refuse_existing(setting: str, *files: Path) -> None:
    """Raises OutputTaken when one of the files is there."""
    taken = next((file for file in files if file.exists()), None)
    if taken is not None:
        raise OutputTaken(f"{taken} holds earlier results: choose another {setting}, or remove it")
